"""What this machine says of itself."""

from __future__ import annotations

from pathlib import Path


def cpuinfo() -> dict[str, str]:
    """Linux's description of a processor, by its keys, as "model name" and "flags"; empty elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
