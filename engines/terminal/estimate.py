"""How much of a job is done, and how long the rest takes, from what its stages report. Knows no clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ltxrt.engines.progress import Progress

_PRIOR = 0.05  # how much of a whole job the expectations' own weight is, against what is measured
_JITTER = 0.05  # how much less may be done than was said before it is taken back
_OVERDUE = 0.1  # a stage that takes longer than expected lasts that much of its time more


@dataclass
class Stage:
    """A stage of a job; times are seconds on the caller's clock.

    first, last: when how many units were done, at the first report with any, and at the latest; waited: until
    when, and with how many done, it could be no faster than another stage; shown: a view has said that it has
    ended.
    """

    name: str
    expected: float | None = None
    began: float | None = None
    ended: float | None = None
    heard: float = 0.0
    done: float = 0.0
    total: float | None = None
    unit: str = ""
    first: tuple[float, float] | None = None
    last: tuple[float, float] = (0.0, 0.0)
    waited: tuple[float, float] | None = None
    shown: bool = False

    @property
    def running(self) -> bool:
        return self.began is not None and self.ended is None

    @property
    def seconds_per_unit(self) -> float | None:
        """Between the first and the last report, so that loading does not count; None if not known."""
        if self.first is None or self.last[1] <= self.first[1]:
            return None
        return (self.last[0] - self.first[0]) / (self.last[1] - self.first[1])

    def count_from(self, now: float) -> None:
        """Measure its pace anew: until now it has waited for another stage."""
        self.waited = (now, self.done)
        self.first = self.last = self.waited

    def left(self, now: float, speed: float) -> float | None:
        """Seconds that it still takes, where `speed` is how much longer than expected stages take."""
        if self.ended is not None:
            return 0.0
        whole = None if self.expected is None else self.expected * speed
        if self.began is None:
            return whole
        each, elapsed = self.seconds_per_unit, now - self.began
        if self.total and each is not None:
            return max((self.total - self.done) * each - (now - self.last[0]), 0.0)
        if whole is not None:
            return max(whole - elapsed, elapsed * _OVERDUE)
        start, before = self.waited or (self.began, 0.0)
        if self.total and self.done > before:
            return (self.total - self.done) * (self.last[0] - start) / (self.done - before)
        return None

    def fraction(self, now: float, speed: float) -> float | None:
        """How much of it is done: of its units if there are several, else of its time; None if not known."""
        if self.total is not None and self.total > 1:
            return min(self.done / self.total, 1.0)
        left = self.left(now, speed)
        if left is None or self.began is None:
            return None
        return (now - self.began) / (now - self.began + left) if left else 1.0


class Estimate:
    """The stages of a job that began at `began`; those that were expected come first."""

    def __init__(self, began: float) -> None:
        self.began = began
        self.stages: dict[str, Stage] = {}
        self._reached = 0.0

    def expect(self, seconds: Mapping[str, float]) -> None:
        """The job's stages in order, with about how long each takes; replaces what was expected before."""
        begun = {name: stage for name, stage in self.stages.items() if stage.began is not None}
        self.stages = {name: begun.get(name) or Stage(name) for name in (*seconds, *begun)}
        for name, stage in self.stages.items():
            stage.expected = seconds.get(name)

    def update(self, progress: Progress, now: float) -> Stage:
        """Note what a stage reports; returns it."""
        stage = self.stages.get(progress.stage)
        if stage is None or stage.ended is not None:
            stage = Stage(progress.stage, stage.expected if stage else None)
            self.stages[progress.stage] = stage
        if stage.began is None:
            for other in self.running():
                if other.total is None:  # nothing else says that it is over
                    other.ended = now
            stage.began = now
        stage.done, stage.total, stage.unit, stage.heard = progress.done, progress.total, progress.unit, now
        if progress.done > 0:
            stage.first = stage.first or (now, progress.done)
            stage.last = (now, progress.done)
        if progress.total is not None and progress.done >= progress.total:
            for other in self.running():
                if other is stage or other.heard < stage.began:
                    other.ended = now
                elif other.expected is None:
                    other.count_from(now)
        return stage

    def running(self) -> list[Stage]:
        """Stages that have begun and not ended, in that order; some run alongside others."""
        found = [stage for stage in self._all() if stage.running]
        return sorted(found, key=lambda stage: stage.began or 0.0)

    def left(self, now: float) -> float | None:
        """Seconds until the job is done; None where nothing was expected."""
        if not any(stage.expected for stage in self._all()):
            return None
        speed, total = self.speed(now), 0.0
        for stage in self._all():
            left = stage.left(now, speed)
            if stage.expected is not None:
                total += left or 0.0
        alongside = [s.left(now, speed) or 0.0 for s in self.running() if s.expected is None]
        return max(total, *alongside, 0.0)

    def fraction(self, now: float) -> float | None:
        """How much of the job's time is over, 0 to 0.99; None where nothing was expected.

        It goes back only where much less is done than it seemed.
        """
        left = self.left(now)
        if left is None:
            return None
        elapsed = now - self.began
        found = min(elapsed / (elapsed + left), 0.99) if elapsed + left > 0 else 0.0
        if found > self._reached or found < self._reached - _JITTER:
            self._reached = found
        return self._reached

    def _all(self) -> list[Stage]:
        """A copy, because another thread may be drawing them."""
        return list(self.stages.values())

    def speed(self, now: float) -> float:
        """How much longer than expected stages have taken so far."""
        expected = sum(stage.expected or 0.0 for stage in self._all())
        prior = _PRIOR * expected
        measured = planned = prior
        for stage in self._all():
            if not stage.expected or stage.began is None:
                continue
            if stage.ended is not None:
                measured, planned = measured + stage.ended - stage.began, planned + stage.expected
            elif stage.total and stage.done:
                measured += stage.last[0] - stage.began
                planned += stage.expected * stage.done / stage.total
        return measured / planned if planned > 0 else 1.0

    def measured(self) -> dict[str, float]:
        """Of each stage that was expected and has ended: its seconds by those expected."""
        return {
            stage.name: (stage.ended - stage.began) / stage.expected
            for stage in self._all()
            if stage.expected and stage.began is not None and stage.ended is not None
        }
