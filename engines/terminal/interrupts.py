"""Ctrl-C and SIGTERM: "stopping…" at once, work ended by callbacks, and a hard exit for what does not end.

Python runs signal handlers between two bytecodes of the main thread, so a call into compiled code (a step, a
decode, a build) would delay them to its end. The interpreter writes each signal's number to a pipe as it
arrives, and a thread that reads the pipe calls the callbacks (`on_interrupt`), which end such a call. The
main thread raises KeyboardInterrupt as usual as soon as it runs Python again. Where it does not within GRACE
seconds, or where Ctrl-C comes again, a console command removes its temporary files and exits hard.

Standard library only, and little of that: imported before everything else.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

GRACE = 0.7  # seconds from a signal to the hard exit
STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143}
_DEFAULT = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
_PATIENCE = 5.0  # seconds that the end of a command waits for callbacks; they do not block

Callback = Callable[[], object]


class Terminated(KeyboardInterrupt):
    """SIGTERM, with the same cleaning up as after an interruption."""


class _State:
    """Of the running command; there is one at a time, in the main thread."""

    def __init__(self) -> None:
        self.raised: list[type[KeyboardInterrupt]] = []
        self.stopping = threading.Event()  # a signal has been seen by the thread
        self.handled = threading.Event()  # and the callbacks were called
        self.lock = threading.Lock()
        self.callbacks: list[Callback] = []
        self.announce: Callable[[], None] = _announce
        self.hard = False
        self.deferring = 0  # blocks of `deferred` that the main thread is in


def _announce() -> None:
    with contextlib.suppress(OSError, ValueError):  # stderr is closed
        sys.stderr.write("stopping…\n")
        sys.stderr.flush()


_state = _State()


@contextmanager
def on_interrupt(callback: Callback) -> Iterator[None]:
    """While the block runs, call `callback` once when Ctrl-C or SIGTERM asks to stop.

    It is called from another thread, must not block, and ends what the main thread does in compiled code:
    `EnginePool.interrupt`, a build's stop flag, a child's `kill`. Called at once where stopping was asked
    for before. Its exceptions are ignored.
    """
    with _state.lock:
        late = _state.stopping.is_set()
        _state.callbacks.append(callback)
    if late:
        _call(callback)
    try:
        yield
    finally:
        with _state.lock, contextlib.suppress(ValueError):
            _state.callbacks.remove(callback)


@contextmanager
def announced(announce: Callable[[], None]) -> Iterator[None]:
    """While the block runs, `announce` says that the command is stopping, in place of a line on stderr."""
    before, _state.announce = _state.announce, announce
    try:
        yield
    finally:
        _state.announce = before


def asked() -> type[KeyboardInterrupt] | None:
    """The first interruption since the command began, if there was one."""
    return _state.raised[0] if _state.raised else None


def check_interrupted() -> None:
    """Raise an interruption again that other code has suppressed; for the loops of long commands.

    Compiled modules suppress it while they are imported: the command would run to its end.
    """
    if _state.raised:
        raise _state.raised[0]


@contextmanager
def deferred() -> Iterator[None]:
    """While the block runs in the main thread, an interruption waits for its end to be raised.

    For short blocks that must not be left half-way, such as drawing. The callbacks do not wait.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = len(_state.raised)
    _state.deferring += 1
    try:
        yield
    finally:
        _state.deferring -= 1
        if not _state.deferring and len(_state.raised) > before:
            raise _state.raised[-1]


def settle() -> None:
    """Wait until an interruption has been announced and its callbacks have been called."""
    if _state.raised:
        _state.handled.wait(_PATIENCE)


@contextmanager
def interruptible(hard: bool = False) -> Iterator[None]:
    """Handle Ctrl-C and SIGTERM while the block runs, unless the process handles them itself.

    `hard`: this is a process of its own, which may end by `os._exit`. Does nothing in other threads, and
    within another such block.
    """
    taken = {number: usual for number, usual in _DEFAULT.items() if signal.getsignal(number) is usual}
    if threading.current_thread() is not threading.main_thread() or not taken:
        yield
        return
    _start_over(hard)
    try:
        with _watching(frozenset(map(int, taken))):
            for number in taken:
                signal.signal(number, _raise)
            yield
    finally:
        for number, before in taken.items():
            signal.signal(number, before)
        _start_over()


def _start_over(hard: bool = False) -> None:
    _state.raised.clear()
    _state.stopping.clear()
    _state.handled.clear()
    _state.hard = hard


def _raise(number: int, _frame: object) -> None:
    if number == signal.SIGTERM:
        signal.signal(number, signal.SIG_IGN)  # often sent twice; cleaning up must not be interrupted
    elif _state.hard and _state.raised:
        return  # the thread exits
    _state.raised.append(Terminated if number == signal.SIGTERM else KeyboardInterrupt)
    if not _state.deferring:
        raise _state.raised[-1]


@contextmanager
def _watching(numbers: frozenset[int]) -> Iterator[None]:
    """A thread that hears of the signals `numbers` as they arrive."""
    reader, writer = os.pipe()
    if hasattr(os, "set_blocking"):  # not on Windows before Python 3.12, nor needed there
        os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    thread = threading.Thread(target=_watch, args=(reader, numbers), name="interruptions", daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        with contextlib.suppress(OSError):
            os.write(writer, b"\0")
        thread.join()
        os.close(reader)
        os.close(writer)


def _watch(reader: int, numbers: frozenset[int]) -> None:
    while 0 not in (received := os.read(reader, 64)):
        for number in filter(numbers.__contains__, received):
            if not _state.stopping.is_set():
                _stop(number)
            elif _state.hard and number == signal.SIGINT:
                _exit(number)


def _no_more() -> None:
    """In a forked child: its signals are none of the parent's."""
    with contextlib.suppress(ValueError):
        signal.set_wakeup_fd(-1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_no_more)


def _stop(number: int) -> None:
    """Announce the end, call the callbacks, and see to it that the end comes."""
    if _state.hard:
        timer = threading.Timer(GRACE, _exit, (number,))
        timer.daemon = True
        timer.start()
    with _state.lock:
        _state.stopping.set()
        callbacks = list(_state.callbacks)
    for callback in (_state.announce, *reversed(callbacks)):
        _call(callback)
    _state.handled.set()


def _call(callback: Callback) -> None:
    with contextlib.suppress(Exception):
        callback()


def _exit(number: int) -> None:
    """Remove temporary files and end the process, whatever other threads do."""
    files = sys.modules.get("ltxrt.engines.storage.files")
    if files is not None:
        _call(files.discard_all)
    line = b"terminated\n" if number == signal.SIGTERM else b"interrupted\n"
    with contextlib.suppress(OSError):
        os.write(2, b"\n" + line if os.isatty(2) else line)  # behind bars that are still there
    os._exit(STATUS[signal.Signals(number)])
