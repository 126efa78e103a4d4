"""What an export reports of itself: the stages of each component, and about how long each takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ltxrt.engines.precision import WEIGHT_BYTES

if TYPE_CHECKING:
    from ltxrt.export.checkpoint.part import Checkpoint

TRACING, WRITING, CHECKING = "tracing", "writing weights", "checking"
COLOURS = "preview colours"  # the stage in which `Family.preview` fits them
# Seconds on two cores of a server, for weights until a job has measured its own.
_TRACING, _PER_TENSOR, _CHECKING = 8.0, 0.05, 1.0
_COLOURS = 1.0
_BYTES_PER_SECOND = 200e6


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
        size = sum(tensor.size for tensor in weights) * WEIGHT_BYTES[precision]
        seconds = (_TRACING + _PER_TENSOR * len(weights), 0.1 + size / _BYTES_PER_SECOND, _CHECKING)
        steps = (TRACING, WRITING, CHECKING)
        found.update({stage(name, precision, step): s for step, s in zip(steps, seconds)})
        if name == previewed:
            found[COLOURS] = _COLOURS + 5 * size / _BYTES_PER_SECOND
    return found
