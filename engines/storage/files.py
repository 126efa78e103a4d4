"""Atomic writes, bounded reads, and paths that do not leave their folder.

Knows bytes and folders, not formats.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
import shutil
import stat
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path, PurePosixPath, PureWindowsPath

from ltxrt.engines.errors import BundleError, InputError
from ltxrt.engines.storage import locks, system

_NAME = 255  # bytes in the name of a file
_PIECE = 8 << 20  # bytes read at a time
_ABANDONED = 86_400.0  # seconds after which a temporary file is taken to be left, where locks cannot tell


def cache_folder() -> Path:
    """Where this user's caches of ltxrt are. RuntimeError where the user has no home folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ltxrt"


@contextmanager
def atomic_write(path: Path, flush: bool = True) -> Iterator[Path]:
    """Yield a temporary path in `path`'s folder, with its suffix; it becomes `path` when the block succeeds.

    The temporary file exists, empty, when the block starts. It is removed on any exception, interruptions
    included, so that `path` is either unchanged or complete. Without `flush`, which waits for the disk, a
    power failure may leave it incomplete.

    Raises InputError if `path` is something that renaming would destroy: a folder, a device, a pipe.
    """
    if path.exists() and not path.is_file():
        raise InputError(f"{path} is not a regular file; give the path of a file to write")
    with temporary_for(path) as temporary:
        yield temporary
        if flush:
            _flush(temporary)
        temporary.replace(path)


@contextmanager
def temporary_for(path: Path) -> Iterator[Path]:
    """Yield a new, empty file `.{stem}.{8 hexadecimal digits}{suffix}` beside `path`; removed afterwards,
    unless it was renamed.

    It is locked while the block runs. Files that killed processes left under such names for the same `path`
    are not locked, and are removed first. On Windows, which renames no file that is open, none is locked, and
    those of a day ago are removed.
    """
    _sweep(path)
    temporary, descriptor = _claim(path)
    with _discarded(temporary, descriptor):
        yield temporary


@contextmanager
def temporary_folder_for(path: Path) -> Iterator[Path]:
    """Yield a new, empty folder beside `path`, named as `temporary_for` names files; removed afterwards,
    unless it was renamed.

    It is locked while the block runs. Folders of files that killed processes left for the same `path` are
    removed first.
    """
    _sweep(path, stat.S_IFDIR)
    temporary = temporary_name(path)
    temporary.mkdir()
    descriptor = None
    if system.OPEN_FILES_MOVE:
        descriptor = locks.folder_descriptor(temporary)
        with contextlib.suppress(OSError):  # a file system without locks, on which nothing is removed either
            system.lock(descriptor)
    with _discarded(temporary, descriptor):
        yield temporary


def discard_all() -> None:
    """Remove the temporary files and folders of blocks that are running, before a hard exit.

    Their threads go on until the process has ended, so nothing may run after this.
    """
    for temporary in list(_live):
        _discard(temporary)


@contextmanager
def removed_on_failure(*paths: Path) -> Iterator[None]:
    """Remove these files if the block does not succeed, a hard exit included: they belong together."""
    _live.update(paths)
    try:
        yield
    except BaseException:
        for path in paths:
            path.unlink(missing_ok=True)
        raise
    finally:
        _live.difference_update(paths)


_live: set[Path] = set()  # what `discard_all` removes


@contextmanager
def _discarded(temporary: Path, descriptor: int | None) -> Iterator[None]:
    """Remove `temporary` and release its lock when the block ends."""
    _live.add(temporary)
    try:
        yield
    finally:
        _discard(temporary)
        _live.discard(temporary)
        if descriptor is not None:
            locks.release(descriptor)


def _discard(temporary: Path) -> None:
    if temporary.is_dir() and not temporary.is_symlink():
        shutil.rmtree(temporary, ignore_errors=True)
    else:
        temporary.unlink(missing_ok=True)


def temporary_name(path: Path) -> Path:
    """A name for a file or folder beside `path` that is written in its place; `_sweep` knows them."""
    return path.with_name(f".{path.stem}.{secrets.token_hex(4)}{path.suffix}")


def _claim(path: Path) -> tuple[Path, int | None]:
    """Create a temporary file; returns it with the descriptor that holds its lock, if it is locked."""
    while True:
        temporary = temporary_name(path)
        # Not mkstemp, whose mode 0600 would be kept by the renaming.
        descriptor = locks.descriptor_of(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR)
        if not system.OPEN_FILES_MOVE:
            locks.release(descriptor)
            return temporary, None
        try:
            system.lock(descriptor)
            if os.path.samestat(os.fstat(descriptor), temporary.lstat()):
                return temporary, descriptor
        except (BlockingIOError, FileNotFoundError):
            pass  # removed by another process between the two calls
        except OSError:
            return temporary, descriptor  # a file system without locks, on which nothing is removed either
        locks.release(descriptor)


def _sweep(path: Path, kind: int = stat.S_IFREG) -> None:
    """Remove temporary files (or, with S_IFDIR, folders) of `path` that no process has locked."""
    name = re.compile(rf"\.{re.escape(path.stem)}\.[0-9a-f]{{8}}{re.escape(path.suffix)}")
    with contextlib.suppress(OSError), os.scandir(path.parent) as entries:
        left = [path.parent / entry.name for entry in entries if name.fullmatch(entry.name)]
        for temporary in left:
            with contextlib.suppress(OSError):  # locked, gone, not permitted, or a folder with folders in it
                if system.OPEN_FILES_MOVE:
                    _remove_unheld(temporary, kind)
                else:
                    _remove_old(temporary, kind)


def _remove_unheld(temporary: Path, kind: int) -> None:
    descriptor = locks.descriptor_of(temporary, os.O_RDONLY | system.WITHOUT_WAITING, follow=False)
    try:
        if stat.S_IFMT(os.fstat(descriptor).st_mode) == kind:
            system.lock(descriptor)
            _remove(temporary, kind)
    finally:
        locks.release(descriptor)


def _remove_old(temporary: Path, kind: int) -> None:
    status = temporary.lstat()
    if stat.S_IFMT(status.st_mode) == kind and time.time() - status.st_mtime > _ABANDONED:
        _remove(temporary, kind)


def _remove(temporary: Path, kind: int) -> None:
    """Remove a file, or a folder of files."""
    if kind == stat.S_IFREG:
        temporary.unlink()
        return
    for file in temporary.iterdir():
        file.unlink()
    temporary.rmdir()


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


@contextmanager
def read_ahead(paths: Sequence[Path]) -> Iterator[None]:
    """While the block runs, read files once in a thread, so that they are in the system's page cache.

    Reading stops when the block ends, or when only an eighth of the memory is available. An unreadable file
    is ignored: whoever needs it raises.
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
    if not hasattr(os, "sysconf"):  # Windows
        return False
    return os.sysconf("SC_AVPHYS_PAGES") > os.sysconf("SC_PHYS_PAGES") // 8


class NotRegularError(OSError):
    """A pipe, a device, a folder or a socket, where a regular file is required."""


def open_regular(path: Path, follow: bool = True) -> BufferedReader:
    """Open a regular file for reading, without blocking. Raises OSError, and NotRegularError for other files.

    With `follow` False a symbolic link is refused as well.
    """
    descriptor = system.open_file(path, os.O_RDONLY | system.WITHOUT_WAITING, follow=follow)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    raise NotRegularError(errno.EINVAL, "not a regular file", str(path))


def read_small(path: Path, limit: int) -> bytes:
    """Up to `limit` bytes of a regular file that is not a symbolic link. Raises OSError."""
    with open_regular(path, follow=False) as file:
        return file.read(limit)


def sha256(path: Path) -> str:
    """The file's SHA-256 as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def make_folder(root: Path, *parts: str) -> Path:
    """Create the folder `root` / `parts` to write in, and return it.

    Raises BundleError if one of `parts` is not a folder or is a symbolic link, which could lead outside;
    OSError if it cannot be created. `root` itself may be a link, because the user has named it.
    """
    folder = root
    for part in parts:
        folder = folder / part
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
        mode = folder.lstat().st_mode
        if not stat.S_ISDIR(mode):
            found = "a symbolic link" if stat.S_ISLNK(mode) else "not a folder"
            raise BundleError(f"{folder} is {found}; a bundle has folders of its own: put a folder there")
    return folder


def inside(root: Path, relative: str) -> Path:
    """`root / relative`; BundleError if it leaves `root`: absolute, through `..`, or through a symbolic link.

    Backslashes and drives are refused on every system, because bundles are copied between systems.
    """
    shapes = (PurePosixPath(relative), PureWindowsPath(relative))
    if not relative or "\0" in relative or any(s.anchor or ".." in s.parts for s in shapes):
        raise BundleError(f"path {relative!r} leaves the folder {root}; it must be relative and without '..'")
    if any(len(part.encode(errors="replace")) > _NAME for part in shapes[0].parts):
        raise BundleError(f"path {relative[:60]!r}… in {root} has a name that no file can have")
    path = root / relative
    try:
        stays = path.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError) as error:  # a cycle of links
        raise BundleError(f"path {relative!r} in {root} cannot be resolved: {error}") from error
    if not stays:
        raise BundleError(
            f"path {relative!r} leaves the folder {root} through a symbolic link; copy the file into it"
        )
    return path
