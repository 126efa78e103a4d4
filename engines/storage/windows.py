"""Shared and exclusive locks on Windows, which locks ranges of bytes, each for one.

A file stands for READERS places: who reads holds one of them, who writes all. Not verified on Windows; the
tests run it with ranges that Linux locks.
"""

from __future__ import annotations

import errno
import importlib
import os
import time
from typing import Any

READERS = 64
_PAUSE = 0.05  # seconds between two tries of who waits
_held: dict[int, tuple[int, int]] = {}  # descriptor → first place and number of places


def lock(descriptor: int, shared: bool, wait: bool) -> None:
    """As `system.lock`."""
    while True:
        try:
            _held[descriptor] = _take(descriptor, shared)
            return
        except BlockingIOError:
            if not wait:
                raise
        time.sleep(_PAUSE)


def unlock(descriptor: int) -> None:
    """As `system.unlock`; no effect where nothing is held."""
    if (held := _held.pop(descriptor, None)) is not None:
        _change(descriptor, *held, "LK_UNLCK")


def _take(descriptor: int, shared: bool) -> tuple[int, int]:
    if not shared:
        _change(descriptor, 0, READERS, "LK_NBLCK")
        return 0, READERS
    for place in range(READERS):
        try:
            _change(descriptor, place, 1, "LK_NBLCK")
            return place, 1
        except BlockingIOError:
            continue
    raise BlockingIOError(errno.EAGAIN, "all places are locked")


def _change(descriptor: int, first: int, count: int, how: str) -> None:
    """Lock or unlock places; BlockingIOError where another has one of them."""
    system: Any = importlib.import_module("msvcrt")
    os.lseek(descriptor, first, os.SEEK_SET)
    try:
        system.locking(descriptor, getattr(system, how), count)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EDEADLK):
            raise BlockingIOError(errno.EAGAIN, "locked") from error
        raise
