"""Facts about this machine and its installation."""

from __future__ import annotations

import functools
import os
import platform
from collections.abc import Iterable, Iterator
from pathlib import Path


@functools.cache  # of ltxrt, read twice for each video
def package_version(distribution: str) -> str | None:
    """The installed version of a distribution ("onnxruntime-gpu"), None if it is absent."""
    import importlib.metadata  # as much as a tenth of a start; for what records or shows a version

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
    return dict(_entries(lines))


def _entries(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    for line in lines:
        key, _, value = line.partition(":")
        yield key.strip(), value.strip()


def physical_cores() -> int | None:
    """The processor's cores, of which several threads may share one; on which sums are spread by default."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return os.cpu_count()
    blocks = [dict(_entries(block.splitlines())) for block in text.split("\n\n") if block.strip()]
    cores = {(block["physical id"], block["core id"]) for block in blocks if "core id" in block}
    return len(cores) or os.cpu_count()


def cpu_name() -> str:
    """The processor's model, or its architecture if unknown."""
    return cpuinfo().get("model name") or platform.processor() or platform.machine() or "unknown"
