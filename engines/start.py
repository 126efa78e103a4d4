"""The entry point of the console commands, which answers signals before anything else is imported.

Imports almost nothing, so that little can be interrupted before it.
"""

import contextlib
import gc
import os
import signal
import sys
from collections.abc import Callable, Iterator

_own_process = False


def run(load: Callable[[], Callable[[], object]]) -> None:
    """Run the command that `load` imports; Ctrl-C while importing ends with exit status 130, SIGTERM with
    143.

    An interrupted command leaves by `os._exit` once it has cleaned up: nothing is left to wait for.
    """
    global _own_process
    _own_process = True
    try:
        from ltxrt.engines.terminal import interrupts

        with interrupts.interruptible(hard=True):
            status = _status(load)
            if interrupts.asked():
                _leave(status)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C would interrupt what follows
        sys.stderr.write("interrupted\n")
        status = 130
    sys.exit(status)


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Around the import of many modules: no garbage is collected, because what they make stays.

    In a process of its own, a command's, it is never looked at again either.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            if _own_process:
                gc.freeze()
            gc.enable()


def _status(load: Callable[[], Callable[[], object]]) -> int | str | None:
    from ltxrt.engines.terminal.interrupts import Terminated

    try:
        with importing():
            command = load()
        command()
    except SystemExit as end:
        return end.code
    except Terminated:
        sys.stderr.write("terminated\n")
        return 143
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130
    return 0


def _leave(status: int | str | None) -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status if isinstance(status, int) else 1)
