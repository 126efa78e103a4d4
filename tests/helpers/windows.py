"""A process as it is on Windows, as far as Linux can show it: without what POSIX alone has.

`hide()` comes after the packages of others are loaded, which know their own ways, and before ltxrt is.
"""

import errno
import fcntl
import os
import signal
import struct
import sys
from types import ModuleType

MODULES = ("fcntl", "grp", "pty", "pwd", "resource", "syslog", "termios", "tty")
OS = (
    "O_CLOEXEC", "O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK", "fork", "getegid", "geteuid", "getgid",
    "getloadavg", "getpgid", "getuid", "killpg", "mkfifo", "posix_fadvise", "posix_spawn", "register_at_fork",
    "sched_getaffinity", "setsid", "statvfs", "sysconf",
)  # fmt: skip
SIGNALS = ("SIGALRM", "SIGHUP", "SIGKILL", "SIGQUIT", "SIGUSR1", "SIGVTALRM", "setitimer", "siginterrupt")


def msvcrt():
    """Windows' module of that name with its locks of bytes, which Linux holds by open descriptors as well."""
    made = ModuleType("msvcrt")
    made.LK_UNLCK, made.LK_NBLCK = 0, 2

    def locking(descriptor, mode, count):
        kind = fcntl.F_UNLCK if mode == made.LK_UNLCK else fcntl.F_WRLCK
        start = os.lseek(descriptor, 0, os.SEEK_CUR)
        row = struct.pack("hhqqi4x", kind, os.SEEK_SET, start, count, 0)
        try:
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, row)
        except OSError as error:
            raise OSError(errno.EACCES, "Permission denied") from error

    made.locking = locking
    return made


def hide():
    """Take away what Windows does not have."""
    sys.modules["msvcrt"] = msvcrt()
    sys.modules.update(dict.fromkeys(MODULES))  # None: importing it fails
    for module, names in ((os, OS), (signal, SIGNALS)):
        for name in names:
            if hasattr(module, name):
                delattr(module, name)
