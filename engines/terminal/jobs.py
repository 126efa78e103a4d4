"""The progress of a job of several stages, drawn as bars on a terminal and as lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from ltxrt.engines.cli_base import check_interrupted, say
from ltxrt.engines.progress import Progress
from ltxrt.engines.terminal.output import Mode, emit, mode

_SECONDS_BETWEEN_LINES = 3.0


class Job:
    """A report (`ltxrt.engines.progress.Report`) that shows what it is told, in the command's mode."""

    def __init__(self) -> None:
        self._stage = ""
        self._shown = 0.0

    def expect(self, seconds: Mapping[str, float]) -> None:
        """The job's stages in order, with about how long each takes: the weights of percent and ETA."""

    def __call__(self, progress: Progress) -> None:
        check_interrupted()
        if mode() is Mode.QUIET:
            return
        now = time.monotonic()
        if progress.stage == self._stage and now - self._shown < _SECONDS_BETWEEN_LINES:
            return
        self._stage, self._shown = progress.stage, now
        if mode() is Mode.JSON:
            emit("progress", **vars(progress))
            return
        done = f"  {progress.done:g}/{progress.total:g} {progress.unit}s" if progress.total else ""
        say(f"{progress.stage}{done}", err=True)


@contextmanager
def job() -> Iterator[Job]:
    """Around the work of a command."""
    yield Job()
