"""Interruption and progress of a build, and writing an engine to its file while it is serialized.

The packages call Python from C++ and drop exceptions that are raised there, KeyboardInterrupt included.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, BinaryIO, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """While its block runs, signals with a Python handler are only recorded; their handlers run at the end.

    Has no effect outside the main thread, which receives no signals.
    """

    def __init__(self) -> None:
        self._handlers: dict[int, Any] = {}
        self._noted: list[tuple[int, FrameType | None]] = []

    def __bool__(self) -> bool:
        """Whether one has arrived."""
        return bool(self._noted)

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                handler = signal.getsignal(number)
                if callable(handler):
                    self._handlers[number] = handler
                    signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        for number, frame in self._noted[:1]:
            self._handlers[number](number, frame)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._noted.append((number, frame))


class Phases:
    """How much of a build is done, from its nested phases, each with a number of steps.

    A phase within a step of another is that part of the step, and steps of a phase count alike. Phases may
    run at the same time, and several may follow one another within a step, so that the share, which never
    falls, is an estimate.
    """

    def __init__(self) -> None:
        self._steps: dict[str, int] = {}
        self._done: dict[str, int] = {}
        self._inside: dict[str, str | None] = {}
        self._share = 0.0

    def start(self, phase: str, parent: str | None, steps: int) -> None:
        """A phase of so many steps begins, within a step of `parent`."""
        self._steps[phase], self._done[phase], self._inside[phase] = max(steps, 1), 0, parent

    def step(self, phase: str) -> None:
        """One of its steps is done."""
        if phase in self._done:
            self._done[phase] = min(self._done[phase] + 1, self._steps[phase])

    def finish(self, phase: str) -> None:
        """It has ended, before its last step perhaps."""
        for known in (self._steps, self._done, self._inside):
            known.pop(phase, None)

    @property
    def share(self) -> float:
        """From 0 to 1."""
        tops = [phase for phase, parent in self._inside.items() if parent not in self._steps]
        self._share = max([self._share, *map(self._of, tops)])
        return self._share

    def _of(self, phase: str) -> float:
        done, steps = self._done[phase], self._steps[phase]
        within = max((self._of(one) for one, parent in self._inside.items() if parent == phase), default=0.0)
        return (done + within) / steps if done < steps else 1.0


def monitor(trt: Any, interruption: Interruption, progress: Callable[[float], None] | None = None) -> Any:
    """A progress monitor of `trt` that stops the build after an interruption.

    `progress` is told the share that is done; what it raises ends the build and is kept as `error`.
    """

    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.error: BaseException | None = None
            self._phases = Phases()
            self._lock = threading.Lock()  # the builder's threads call

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            with self._lock:
                self._phases.start(phase_name, parent_phase, num_steps)

        def phase_finish(self, phase_name: str) -> None:
            with self._lock:
                self._phases.finish(phase_name)

        def step_complete(self, phase_name: str, step: int) -> bool:
            if progress is not None and self.error is None:
                try:
                    with self._lock:
                        self._phases.step(phase_name)
                        progress(self._phases.share)
                except BaseException as error:
                    self.error = error
            return not interruption and self.error is None

    return Monitor()


def _writer(trt: Any, file: BinaryIO) -> Any:
    class Writer(trt.IStreamWriter):
        def __init__(self) -> None:
            trt.IStreamWriter.__init__(self)
            self.error: Exception | None = None

        def write(self, data: bytes) -> int:
            """Returns how many bytes were written; fewer than given stop the build."""
            if self.error is None:
                try:
                    return file.write(data)
                except Exception as error:  # would be printed here, and the build would report success
                    self.error = error
            return 0

    return Writer()


def write_engine(trt: Any, builder: Any, network: Any, config: Any, output: Path) -> bool:
    """Build, and write the engine to `output`, if possible while it is serialized, which saves a copy in
    memory.

    Returns whether an engine was built; OSError if it could not be written.
    """
    if not hasattr(builder, "build_serialized_network_to_stream"):
        engine = builder.build_serialized_network(network, config)
        if engine is not None:
            with output.open("wb") as file:
                file.write(memoryview(engine))
        return engine is not None
    with output.open("wb") as file:
        writer = _writer(trt, file)
        done = bool(builder.build_serialized_network_to_stream(network, config, writer))
    if writer.error is not None:
        raise writer.error
    return done and output.stat().st_size > 0
