"""Files that are whole or absent, and paths that stay where they belong.

Knows bytes and folders; knows nothing of what is in them.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath

from ltxrt.engines.errors import BundleError, InputError

_PIECE = 8 << 20  # bytes that are read at a time


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path in `path`'s folder, with its suffix; it becomes `path` when the block succeeds.

    The temporary file exists, empty, when the block starts. It is removed on any exception, an interruption
    included, so that `path` is either what it was or complete.

    Raises InputError where `path` is something that renaming would destroy: a folder, a device, a pipe.
    """
    if path.exists() and not path.is_file():
        raise InputError(f"{path} is not a regular file; give the path of a file to write")
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}{path.suffix}")
    temporary.touch(exist_ok=False)  # not mkstemp: its mode 0600 would survive the renaming
    try:
        yield temporary
        _flush(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


@contextmanager
def read_ahead(paths: Sequence[Path]) -> Iterator[None]:
    """While the block runs, read files once, so that the system has them in memory afterwards.

    It stops where the block ends, and where an eighth of the memory is left, so that nothing has to go for
    it; an unreadable file is left to whoever needs it.
    """
    stop = threading.Event()
    reader = threading.Thread(target=_read, args=(paths, stop), name="read ahead", daemon=True)
    reader.start()
    try:
        yield
    finally:
        stop.set()
        reader.join()


def _read(paths: Sequence[Path], stop: threading.Event) -> None:
    buffer = memoryview(bytearray(_PIECE))
    for path in paths:
        try:
            with path.open("rb", buffering=0) as file:
                while not stop.is_set() and _free() and file.readinto(buffer):
                    pass
        except OSError:
            continue


def _free() -> bool:
    return os.sysconf("SC_AVPHYS_PAGES") > os.sysconf("SC_PHYS_PAGES") // 8


def sha256(path: Path) -> str:
    """The file's SHA-256 as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def inside(root: Path, relative: str) -> Path:
    """`root / relative`, refused where it leaves `root`: absolute, through `..`, or through a symbolic link.

    Both kinds of separators and drives are refused on every system, because bundles travel between systems.
    """
    shapes = (PurePosixPath(relative), PureWindowsPath(relative))
    if not relative or "\0" in relative or any(s.anchor or ".." in s.parts for s in shapes):
        raise BundleError(f"path {relative!r} leaves the folder {root}; it must be relative and without '..'")
    path = root / relative
    try:
        stays = path.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError) as error:  # a loop of links
        raise BundleError(f"path {relative!r} in {root} cannot be resolved: {error}") from error
    if not stays:
        raise BundleError(
            f"path {relative!r} leaves the folder {root} through a symbolic link; copy the file into it"
        )
    return path
