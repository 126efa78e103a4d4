"""Files out of the system's cache, and the time that reading them takes."""

from __future__ import annotations

import os
import time
from pathlib import Path

_PIECE = 8 << 20  # bytes read at a time


def forget(folder: Path) -> None:
    """Drop a folder's files from the system's cache; what was not written yet is written first."""
    for path in _files(folder):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read(folder: Path) -> float:
    """Seconds that reading a folder's files from the disk takes, each from beginning to end."""
    forget(folder)
    buffer = memoryview(bytearray(_PIECE))
    start = time.perf_counter()
    for path in _files(folder):
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
    return time.perf_counter() - start


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())
