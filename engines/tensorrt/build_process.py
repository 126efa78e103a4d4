"""Interruption of a build, and writing an engine to its file while it is serialized.

The packages call Python from C++ and drop exceptions that are raised there, KeyboardInterrupt included.
"""

from __future__ import annotations

import signal
import threading
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


def monitor(trt: Any, interruption: Interruption) -> Any:
    """A progress monitor of `trt` that stops the build after an interruption."""

    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            """Required by the interface; shows nothing."""

        def phase_finish(self, phase_name: str) -> None:
            """As phase_start."""

        def step_complete(self, phase_name: str, step: int) -> bool:
            return not interruption

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
