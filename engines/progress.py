"""What long-running library code tells its caller about its progress. Standard library only.

Library functions take a `Report`, call it, and know nothing of terminals; commands pass one that draws
(`ltxrt.engines.terminal`), servers one that sends events. A report may raise to cancel the work.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable


@dataclass(frozen=True)
class Progress:
    """`done` of `total` units of a stage are done; `done` 0 says that the stage begins.

    stage: its name within the job, such as "transformer, pass 1/2" or "vae_decoder fp16: tracing"; total:
    None where it is not known; unit: "step", "tile", "frame", "byte", …, in the singular.
    """

    stage: str
    done: float = 0
    total: float | None = None
    unit: str = ""


Report = Callable[[Progress], None]
PART = " › "  # between a part of a job, such as "video 2/8", and its stage


@runtime_checkable
class Expecting(Protocol):
    """A report that can also be told what comes, such as `ltxrt.engines.terminal.Job`."""

    def expect(self, seconds: Mapping[str, float], key: str = "") -> None:
        """The stages in order, each with about how long it takes; `key` names what times depend on."""


def unreported(_progress: Progress) -> None:
    """The default report: nobody watches."""


def part(report: Report, label: str) -> Report:
    """The report of a part of a job, such as "video 2/8", whose stages are called "video 2/8 › transformer".

    `label` "" is the whole job.
    """
    return report if not label else lambda one: report(replace(one, stage=part_name(label, one.stage)))


def part_name(label: str, stage: str) -> str:
    """What a stage of the part `label` is called; "" is the whole job."""
    return f"{label}{PART}{stage}" if label else stage


def of_parts(parts: Iterable[tuple[str, Mapping[str, float]]], once: Collection[str]) -> dict[str, float]:
    """What `Expecting.expect` takes for a job of several parts, given each label with its stages.

    The stages `once` are one for all parts.
    """
    return {
        stage if stage in once else part_name(label, stage): seconds
        for label, stages in parts
        for stage, seconds in stages.items()
    }


class Counted:
    """Reports a stage as its units are done: `counted()` after each, `counted(4096)` after so many."""

    def __init__(self, report: Report, stage: str, total: float | None, unit: str) -> None:
        self._report, self._stage, self._total, self._unit = report, stage, total, unit
        self.done: float = 0
        self(0)

    def __call__(self, units: float = 1) -> None:
        self.done += units
        self._report(Progress(self._stage, self.done, self._total, self._unit))
