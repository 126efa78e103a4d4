"""What this machine says of itself."""

from __future__ import annotations

import resource
from pathlib import Path


def cpuinfo() -> dict[str, str]:
    """Linux's description of a processor, by its keys, as "model name" and "flags"; empty elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}


def peak_memory() -> int:
    """This process's peak resident bytes; the usage that the system reports begins with the parent's."""
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        return 1024 * int(status.partition("VmHWM:")[2].split()[0])
    except (OSError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
