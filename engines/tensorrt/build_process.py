"""What a build is watched by and written with: interruptions, and engines that go straight to their file.

The packages call Python back from C++ and swallow what is raised there, KeyboardInterrupt too.
"""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, BinaryIO, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """While its block runs, signals that have a Python handler are only noted; their handlers run at the end.

    Does nothing outside the main thread, where no signal arrives.
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
    """A progress monitor of `trt` that ends the build after an interruption."""

    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            """Required; nothing is shown."""

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
            """How many bytes were taken; fewer than there are end the build."""
            if self.error is None:
                try:
                    return file.write(data)
                except Exception as error:  # raised here it would be printed, and the build report success
                    self.error = error
            return 0

    return Writer()


def write_engine(trt: Any, builder: Any, network: Any, config: Any, output: Path) -> bool:
    """Build, and write the engine to `output`: as it is made where the package can, which saves a copy of the
    engine in memory. Whether there is an engine; OSError where it could not be written.
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
