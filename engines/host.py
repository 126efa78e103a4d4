"""Facts about this machine and its installation."""

from __future__ import annotations

import importlib.metadata
import platform
from pathlib import Path


def package_version(distribution: str) -> str | None:
    """The installed version of a distribution ("onnxruntime-gpu"), None if it is absent."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def cpuinfo() -> dict[str, str]:
    """Linux's description of a processor by its keys, such as "model name" and "flags"; empty elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}


def cpu_name() -> str:
    """The processor's model, or its architecture if unknown."""
    return cpuinfo().get("model name") or platform.processor() or platform.machine() or "unknown"
