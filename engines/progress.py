"""What long-running library code tells its caller about its progress. Standard library only.

Library functions take a `Report`, call it, and know nothing of terminals; commands pass one that draws
(`ltxrt.engines.terminal`), servers one that sends events. A report may raise to cancel the work.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


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


def unreported(_progress: Progress) -> None:
    """The default report: nobody watches."""


class Counted:
    """Reports a stage as its units are done: `counted()` after each, `counted(4096)` after so many."""

    def __init__(self, report: Report, stage: str, total: float | None, unit: str) -> None:
        self._report, self._stage, self._total, self._unit = report, stage, total, unit
        self.done: float = 0
        self(0)

    def __call__(self, units: float = 1) -> None:
        self.done += units
        self._report(Progress(self._stage, self.done, self._total, self._unit))
