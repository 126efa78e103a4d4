"""Progress as plain lines and as JSON lines, and what views have in common."""

from __future__ import annotations

import time
from typing import Protocol

from ltxrt.engines.cli_base import say
from ltxrt.engines.description import clock, file_size
from ltxrt.engines.progress import Progress
from ltxrt.engines.terminal.estimate import Estimate, Stage
from ltxrt.engines.terminal.mode import emit

SECONDS_BETWEEN_LINES = 3.0
SECONDS_BETWEEN_EVENTS = 0.1


class View(Protocol):
    """Shows a job; `update` may be called from any thread, but never by two at once."""

    def open(self, estimate: Estimate) -> None:
        """The job begins."""

    def update(self, stage: Stage, progress: Progress) -> None:
        """A stage has reported."""

    def stopping(self) -> None:
        """The user has interrupted the job; called from another thread."""

    def close(self) -> None:
        """The job is over."""


class Nothing:
    """`--quiet`."""

    def open(self, estimate: Estimate) -> None: ...

    def update(self, stage: Stage, progress: Progress) -> None: ...

    def stopping(self) -> None:
        say("stopping…", err=True)

    def close(self) -> None: ...


class Lines(Nothing):
    """A line on stderr when a stage begins, and one every few seconds while it runs."""

    def __init__(self) -> None:
        self._stage, self._shown = "", 0.0

    def open(self, estimate: Estimate) -> None:
        self._estimate = estimate

    def update(self, stage: Stage, progress: Progress) -> None:
        now = time.monotonic()
        if now - self._shown < SECONDS_BETWEEN_LINES and (stage.name == self._stage or progress.done):
            return
        parts = [stage.name + (f": {amount(stage)}" if amount(stage) else ""), pace(stage), self._whole(now)]
        self._stage, self._shown = stage.name, now
        say("  ".join(filter(None, parts)), err=True)

    def _whole(self, now: float) -> str:
        fraction, left = self._estimate.fraction(now), self._estimate.left(now)
        if not fraction or left is None:
            return ""
        return f"({100 * fraction:.0f} % of all, about {clock(left)} left)"


class Json(Nothing):
    """A JSON line for a stage's beginning, its end, and ten times a second in between."""

    def __init__(self) -> None:
        self._shown = 0.0

    def open(self, estimate: Estimate) -> None:
        self._estimate = estimate

    def update(self, stage: Stage, progress: Progress) -> None:
        now = time.monotonic()
        if stage.running and progress.done and now - self._shown < SECONDS_BETWEEN_EVENTS:
            return
        self._shown = now
        fraction, left = self._estimate.fraction(now), self._estimate.left(now)
        emit(
            "progress",
            **vars(progress),
            fraction=None if fraction is None else round(fraction, 4),
            seconds_left=None if left is None else round(left, 2),
        )

    def stopping(self) -> None:
        emit("stopping")


def amount(stage: Stage) -> str:
    """How many of its units a stage has done; "" where there is only one."""
    if stage.unit == "byte":
        total = f" of {file_size(stage.total)}" if stage.total else ""
        return f"{file_size(stage.done)}{total}" if total or stage.done else ""
    if not stage.unit or (stage.total or 0) <= 1:
        return ""
    return f"{stage.unit} {stage.done:g}/{stage.total:g}"


def pace(stage: Stage) -> str:
    """Its speed: seconds per unit, units per second or bytes per second; "" where it is not known."""
    each = stage.seconds_per_unit
    if not each or not stage.unit:
        return ""
    if stage.unit == "byte":
        return f"{file_size(1 / each)}/s"
    return f"{each:.1f} s/{stage.unit}" if each >= 1 else f"{1 / each:.1f} {stage.unit}s/s"
