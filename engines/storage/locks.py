"""Locks on a bundle and on files, so that two commands do not overwrite each other's work.

A lock is held by an open descriptor (`system`): it ends with its process, however that ends. Child processes
do not inherit it: descriptors are closed on exec, and in a forked process.

    writing   exclusive: an export, deleting engines
    reading   shared, excludes writing: building engines, a parity check, a calibration

A command that finds the bundle locked is refused at once, since the other may take hours.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

from ltxrt.engines.errors import BundleError
from ltxrt.engines.storage import system

_descriptors: set[int] = set()
# Device and inode of the folders that the current thread has locked for writing, to make the lock reentrant.
_written: ContextVar[frozenset[tuple[int, int]]] = ContextVar("written", default=frozenset())


def _close_in_child() -> None:
    for descriptor in _descriptors:
        os.close(descriptor)
    _descriptors.clear()


if hasattr(os, "register_at_fork"):  # Windows does not fork
    os.register_at_fork(after_in_child=_close_in_child)


def descriptor_of(path: Path, flags: int, mode: int = 0o666, follow: bool = True) -> int:
    """`os.open` for a descriptor that may be locked; `release` closes it."""
    return _noted(system.open_file(path, flags, mode, follow))


def folder_descriptor(folder: Path) -> int:
    """A descriptor by which an existing folder may be locked; `release` closes it."""
    return _noted(system.open_folder(folder))


def _noted(descriptor: int) -> int:
    _descriptors.add(descriptor)
    return descriptor


def release(descriptor: int) -> None:
    """Close the descriptor and end its lock; no effect in a forked child, where it is closed already.

    Closing alone ends the lock only when a child that was just forked has closed its copy too.
    """
    if descriptor in _descriptors:
        _descriptors.remove(descriptor)
        with suppress(OSError):  # of a file system without locks
            system.unlock(descriptor)
        os.close(descriptor)


@contextmanager
def writing(root: Path) -> Iterator[None]:
    """Hold the exclusive lock of the bundle's existing folder `root`. Raises BundleError if it is locked."""
    identity = _identity(root)
    if identity in _written.get():
        yield
        return
    with _held(root):
        token = _written.set(_written.get() | {identity})
        try:
            yield
        finally:
            _written.reset(token)


@contextmanager
def reading(root: Path) -> Iterator[None]:
    """Hold a shared lock of the bundle. Raises BundleError if another command writes to it."""
    if _identity(root) in _written.get():
        yield
        return
    with _held(root, shared=True):
        yield


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the exclusive lock of a folder in a bundle; waits until it is free."""
    with _held(folder, wait=True):
        yield


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


@contextmanager
def _held(folder: Path, shared: bool = False, wait: bool = False) -> Iterator[None]:
    descriptor = folder_descriptor(folder)
    try:
        try:
            system.lock(descriptor, shared, wait)
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
