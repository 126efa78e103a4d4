"""Guidance as data: which forwards of the transformer a step makes, and how each stream combines them.

A forward is a branch of the step, a stream one modality's tokens. A family's rules decide which data a step
gets; the formulas are here, over float32 arrays (B, …), with statistics per sample. References: the official
LTX-Video and LTX-2 pipelines, which compute the same combinations in velocities and in predicted clean
latents.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ltxrt.engines.errors import LtxrtError

Array = NDArray[np.float32]

# Of the negative prompt; of the prompt; of the prompt with blocks perturbed; without attention between
# streams. In the order in which they stand in a batch.
BRANCHES = ("negative", "positive", "perturbed", "isolated")
SPACES = ("velocity", "x0")


@dataclass(frozen=True)
class StreamGuidance:
    """How one stream combines a step's branches; by default it follows the positive one.

    cfg: classifier-free guidance, 1 is off; cfg_star: the negative branch is first scaled to its projection
    on the positive one; stg: spatiotemporal guidance away from the perturbed branch, 0 is off; modality:
    guidance away from the isolated branch, 1 is off; rescales: factors of `rescale`, applied in turn.
    """

    cfg: float = 1.0
    stg: float = 0.0
    modality: float = 1.0
    rescales: tuple[float, ...] = ()
    cfg_star: bool = False


@dataclass(frozen=True)
class StepGuidance:
    """One step: its branches in the order of the batch, and what each stream makes of them.

    perturbed: for each branch the (block, row) pairs that are False in its perturbation mask; space: what is
    combined, velocities, or the clean latents x0 that they predict.
    """

    streams: Mapping[str, StreamGuidance]
    branches: tuple[str, ...] = ("positive",)
    perturbed: Mapping[str, tuple[tuple[int, int], ...]] = field(default_factory=dict)
    space: str = "velocity"


def perturbation_mask(step: StepGuidance, blocks: int, rows: int) -> NDArray[np.bool_]:
    """The transformer's perturbation_mask (blocks, rows, branches) of a step: False perturbs."""
    mask = np.ones((blocks, rows, len(step.branches)), np.bool_)
    for branch, places in step.perturbed.items():
        for block, row in places:
            mask[block, row, step.branches.index(branch)] = False
    return mask


def predict(
    step: StepGuidance,
    velocities: Mapping[str, Mapping[str, Array]],
    latents: Mapping[str, Array],
    timesteps: Mapping[str, Array],
) -> dict[str, Array]:
    """What a step follows, for each stream (B,N,C), in the step's space.

    velocities: branch → stream → (B,N,C); latents: stream → (B,N,C), timesteps: stream → (B,N), both of the
    step's beginning and looked at for "x0" alone, which is latents − timestep · velocity.
    """
    if set(velocities) != set(step.branches):
        raise LtxrtError(
            f"this step combines {', '.join(step.branches)}; got {', '.join(velocities) or 'nothing'}"
        )
    found = {}
    for name, guidance in step.streams.items():
        outputs = {branch: streams[name] for branch, streams in velocities.items()}
        if step.space == "x0":
            times = timesteps[name][..., None]
            outputs = {branch: latents[name] - times * output for branch, output in outputs.items()}
        found[name] = combine(guidance, outputs)
    return found


def combine(guidance: StreamGuidance, outputs: Mapping[str, Array]) -> Array:
    """One stream's branches, each (B, …), combined: those that ran and that its scales ask for."""
    result = positive = outputs["positive"]
    if guidance.cfg != 1 and "negative" in outputs:
        negative = outputs["negative"]
        negative = projected(negative, positive) if guidance.cfg_star else negative
        result = negative + np.float32(guidance.cfg) * (positive - negative)
    if guidance.stg != 0 and "perturbed" in outputs:
        result = result + np.float32(guidance.stg) * (positive - outputs["perturbed"])
    if guidance.modality != 1 and "isolated" in outputs:
        result = result + np.float32(guidance.modality - 1) * (positive - outputs["isolated"])
    for factor in guidance.rescales:
        result = rescale(result, positive, factor)
    return result


def projected(negative: Array, positive: Array) -> Array:
    """The negative output scaled to its projection of the positive one (CFG-Zero*, optimised scale)."""
    axes = _sample_axes(negative)
    dot = np.sum(positive * negative, axis=axes, keepdims=True, dtype=np.float64)
    squared = np.sum(negative * negative, axis=axes, keepdims=True, dtype=np.float64)
    return negative * (dot / (squared + 1e-8)).astype(np.float32)


def rescale(output: Array, positive: Array, factor: float) -> Array:
    """The output scaled by r·std(positive) / std(output) + (1 − r), r = `factor` (arXiv 2305.08891, 3.4)."""
    ratio = _std(positive) / _std(output)
    return output * (np.float32(factor) * ratio + np.float32(1.0 - factor))


def _std(output: Array) -> Array:
    """Unbiased standard deviation of each sample, (B, 1, …)."""
    deviation = np.std(output, axis=_sample_axes(output), ddof=1, keepdims=True, dtype=np.float64)
    return np.asarray(deviation, np.float32)


def _sample_axes(output: Array) -> tuple[int, ...]:
    return tuple(range(1, output.ndim))
