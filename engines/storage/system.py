"""What storage asks of the operating system: locks, and how files are opened.

POSIX has flock, which locks folders as well. Windows locks bytes of a file (`windows`), so that a folder has
a file for it, and neither renames nor removes what is open. Not verified on Windows; a test hides from a run
what Windows does not have.
"""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

from ltxrt.engines.storage import windows

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK_FILE = ".lock"  # where a folder cannot be locked itself
OPEN_FILES_MOVE = fcntl is not None  # whether an open file can be renamed and removed

# Windows converts line ends in what is opened without O_BINARY; the others are POSIX's.
_ALWAYS = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
WITHOUT_WAITING = getattr(os, "O_NONBLOCK", 0)  # for a pipe that nobody writes to
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)


def open_file(path: Path, flags: int, mode: int = 0o666, follow: bool = True) -> int:
    """`os.open` for a descriptor that child processes do not inherit; OSError for a link unless `follow`."""
    if not follow and not _NO_LINK and path.is_symlink():
        raise OSError(errno.ELOOP, "is a symbolic link", str(path))
    return os.open(path, flags | _ALWAYS | (0 if follow else _NO_LINK), mode)


def open_folder(folder: Path) -> int:
    """A descriptor by which the existing `folder` can be locked."""
    if sys.platform != "win32" and fcntl is not None:
        return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | _ALWAYS)
    return os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | _ALWAYS)


def lock(descriptor: int, shared: bool = False, wait: bool = False) -> None:
    """Lock what is open, for one or, `shared`, for several; it is free again at `unlock` or at the process's
    end.

    Raises BlockingIOError where another has it and `wait` is False; OSError of a file system without locks.
    """
    if sys.platform != "win32" and fcntl is not None:
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        fcntl.flock(descriptor, kind if wait else kind | fcntl.LOCK_NB)
    else:
        windows.lock(descriptor, shared, wait)


def unlock(descriptor: int) -> None:
    """Undo `lock`. Raises OSError of a file system without locks."""
    if sys.platform != "win32" and fcntl is not None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    else:
        windows.unlock(descriptor)


def user() -> int | None:
    """The number of the user whose rights this process has; None on Windows, which has none."""
    return os.geteuid() if hasattr(os, "geteuid") else None
