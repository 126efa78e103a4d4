"""What an export reports of itself: the stages of each component, and about how long each takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from ltxrt.engines.progress import Progress, Report

if TYPE_CHECKING:
    from ltxrt.export.checkpoint.part import Checkpoint

TRACING, WRITING, CHECKING = "tracing", "writing weights", "checking"
COLOURS = "preview colours"  # the stage in which `Family.preview` fits them
# Seconds on two cores of a server, for weights until a job has measured its own.
_TRACING, _PER_TENSOR, _CHECKING = 8.0, 0.05, 1.0
_COLOURS = 1.0
_BYTES_PER_SECOND = 200e6
_BYTES = {"fp32": 4, "fp8": 1, "fp8-fp16": 1}  # of a weight; of others 2


class Listener(Protocol):
    """What `export_bundle` took before it took a `Report`; it is still called if it is given."""

    def stage(self, text: str) -> None:
        """A step has begun."""

    def progress(self, done: int, total: int) -> None:
        """Bytes written of the current step."""


def stage(component: str, precision: str, step: str) -> str:
    """The name of a stage."""
    return f"{component} {precision}: {step}"


def expected(checkpoint: Checkpoint, precisions: Mapping[str, str]) -> dict[str, float]:
    """Every stage of an export of these components in order, with about how many seconds it takes."""
    from ltxrt.export import components, families

    found: dict[str, float] = {}
    previewed = families.family(checkpoint.family).PREVIEWED
    for name, precision in precisions.items():
        weights = components.weights(checkpoint, name).values()
        size = sum(tensor.size for tensor in weights) * _BYTES.get(precision, 2)
        seconds = (_TRACING + _PER_TENSOR * len(weights), 0.1 + size / _BYTES_PER_SECOND, _CHECKING)
        steps = (TRACING, WRITING, CHECKING)
        found.update({stage(name, precision, step): s for step, s in zip(steps, seconds)})
        if name == previewed:
            found[COLOURS] = _COLOURS + 5 * size / _BYTES_PER_SECOND
    return found


def reporting(given: Report | Listener) -> Report:
    """`given` as a report."""
    if callable(given):
        return given

    def report(progress: Progress) -> None:
        if progress.done and progress.total:
            given.progress(int(progress.done), int(progress.total))
        elif not progress.done:
            given.stage(progress.stage)

    return report
