"""What this machine says of itself."""

from __future__ import annotations

import resource
from pathlib import Path


def peak_memory() -> int:
    """This process's peak resident bytes; the usage that the system reports begins with the parent's."""
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        return 1024 * int(status.partition("VmHWM:")[2].split()[0])
    except (OSError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
