"""Locks on a bundle and on files, so that two commands do not write over each other.

A lock is flock's on an open descriptor: nothing is left behind when its process ends or is killed. Children
do not inherit it: descriptors close where another program starts, and in a process that was forked.

    writing   alone with the bundle: an export, deleting engines
    reading   others may read too, nobody may write: building engines, a parity check, a calibration

Whoever finds the bundle taken is refused at once, since what holds it may take hours.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from ltxrt.engines.errors import BundleError

_descriptors: set[int] = set()
# Device and inode of the folders that the current thread writes to: a writer's own steps take the lock again.
_written: ContextVar[frozenset[tuple[int, int]]] = ContextVar("written", default=frozenset())


def _close_in_child() -> None:
    for descriptor in _descriptors:
        os.close(descriptor)
    _descriptors.clear()


os.register_at_fork(after_in_child=_close_in_child)


def descriptor_of(path: Path, flags: int, mode: int = 0o666) -> int:
    """`os.open` for a descriptor that may hold a lock; `release` closes it."""
    descriptor = os.open(path, flags | os.O_CLOEXEC, mode)
    _descriptors.add(descriptor)
    return descriptor


def release(descriptor: int) -> None:
    """Close the descriptor, and with it its lock; nothing in a forked child, which has closed it."""
    if descriptor in _descriptors:
        _descriptors.remove(descriptor)
        os.close(descriptor)


@contextmanager
def writing(root: Path) -> Iterator[None]:
    """Alone with the bundle's folder `root`, which exists. Raises BundleError where it is taken."""
    identity = _identity(root)
    if identity in _written.get():
        yield
        return
    with _held(root, fcntl.LOCK_EX | fcntl.LOCK_NB):
        token = _written.set(_written.get() | {identity})
        try:
            yield
        finally:
            _written.reset(token)


@contextmanager
def reading(root: Path) -> Iterator[None]:
    """Beside other readers of the bundle. Raises BundleError where another one writes to it."""
    if _identity(root) in _written.get():
        yield
        return
    with _held(root, fcntl.LOCK_SH | fcntl.LOCK_NB):
        yield


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Alone with a folder in a bundle; waits for whoever has it."""
    with _held(folder, fcntl.LOCK_EX):
        yield


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


@contextmanager
def _held(folder: Path, kind: int) -> Iterator[None]:
    descriptor = descriptor_of(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, kind)
        except BlockingIOError as error:
            raise BundleError(
                f"{folder}: another command is using this bundle (an export, a build of engines, a parity "
                "check); wait until it has ended"
            ) from error
        except OSError as error:
            raise BundleError(
                f"{folder}: cannot be locked ({error.strerror}), so that two commands could write over each "
                "other; make the bundle on a local disk and copy it"
            ) from error
        yield
    finally:
        release(descriptor)
