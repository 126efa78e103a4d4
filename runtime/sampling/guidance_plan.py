"""Which guidance each step of a schedule takes: per-step lists to batches, perturbation masks and a velocity.

It knows sigmas, block numbers and arrays; engines, prompts and files belong to its callers. The formulas are
in `guidance`, the mapping of lists to steps is the official pipeline's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ltxrt.engines.errors import InputError, setting
from ltxrt.engines.parsing.text import quoted
from ltxrt.runtime.sampling import guidance
from ltxrt.runtime.sampling.guidance import Velocity

# What a perturbed block does instead of its self-attention, in the order of the contract's mask rows.
MODES = ("attention_values", "attention_skip", "transformer_block")

# Inclusive bounds of every value of a list.
LIMITS: dict[str, tuple[float, float]] = {
    "guidance_scale": (0, 100),
    "stg_scale": (0, 100),
    "rescaling_scale": (0, 1),
    "guidance_timesteps": (0, 1),
}


@dataclass(frozen=True)
class StepGuidance:
    """One step: CFG runs where cfg > 1; where stg > 0, STG over `skip_blocks`, then rescaling unless 1.

    Without blocks to perturb the perturbed velocity would be the positive one, and its difference 0: nothing
    is run for it, and rescaling stays, as in the official pipeline, which runs it all the same.
    """

    cfg: float
    stg: float
    rescale: float
    skip_blocks: tuple[int, ...]


@dataclass(frozen=True)
class GuidanceLists:
    """Guidance as presets and settings files state it; the defaults are no guidance at all.

    Each list holds one entry for all steps, or as many as guidance_timesteps (descending sigmas). A step then
    takes the first entry whose guidance timestep is not above its sigma, and the last where all are above it.
    """

    guidance_scale: tuple[float, ...] = (1.0,)
    stg_scale: tuple[float, ...] = (0.0,)
    rescaling_scale: tuple[float, ...] = (1.0,)
    guidance_timesteps: tuple[float, ...] | None = None
    skip_block_list: tuple[tuple[int, ...], ...] = ((),)
    mode: str = "attention_values"
    cfg_star: bool = False


def plan(lists: GuidanceLists, sigmas: NDArray[np.floating]) -> tuple[StepGuidance, ...]:
    """The guidance of each of the descending `sigmas` (n,).

    Raises InputError for lists that do not fit together, values out of range and an unknown mode.
    """
    check(lists)
    return tuple(_entry(lists, j) for j in _mapping(lists.guidance_timesteps, sigmas))


def unperturbed(steps: Sequence[StepGuidance]) -> int:
    """How many steps have STG and no block that it would perturb, so that it has no effect there."""
    return sum(step.stg > 0 and not step.skip_blocks for step in steps)


def check(lists: GuidanceLists) -> None:
    """Refuse lists that no schedule could use; InputError names the list and what is allowed."""
    _mode_row(lists.mode)
    timesteps = lists.guidance_timesteps
    for name, (low, high) in LIMITS.items():
        for value in getattr(lists, name) or ():
            if not low <= value <= high:  # NaN compares false
                shown = quoted(value) if isinstance(value, int) else f"{value:g}"
                raise InputError(f"{setting(name)} {shown}: must be between {low:g} and {high:g}")
    if timesteps is not None and (not timesteps or list(timesteps) != sorted(set(timesteps), reverse=True)):
        shown = ", ".join(f"{t:g}" for t in timesteps) or "(empty)"
        raise InputError(
            f"{setting('guidance_timesteps')} {shown}: must be one or more sigmas, each below the one before"
        )
    for name in ("guidance_scale", "stg_scale", "rescaling_scale", "skip_block_list"):
        _check_length(name, len(getattr(lists, name)), timesteps)


def check_blocks(steps: Sequence[StepGuidance], layers: int) -> None:
    """Refuse block numbers that a transformer of `layers` blocks lacks, where STG would perturb them.

    Meant for before the first step; where STG is off they are harmless, and official files have some.
    """
    for step in steps:
        for block in step.skip_blocks if step.stg > 0 else ():
            if not 0 <= block < layers:
                raise InputError(
                    f"{setting('skip_block_list')} names block {quoted(block)}; this transformer has "
                    f"{layers} blocks, 0 to {layers - 1}"
                )


def parts(step: StepGuidance) -> tuple[str, ...]:
    """The sub-batches the step runs, in batch order: of "negative", "positive", "perturbed"."""
    negative = ("negative",) if step.cfg > 1 else ()
    perturbed = ("perturbed",) if step.stg > 0 and step.skip_blocks else ()
    return (*negative, "positive", *perturbed)


def perturbation_mask(layers: int, parts: Sequence[str], step: StepGuidance, mode: str) -> NDArray[np.bool_]:
    """The transformer's perturbation_mask (layers, 3, len(parts)): False perturbs a block of a sub-batch.

    Raises InputError for an unknown mode and for blocks that the transformer lacks.
    """
    row = _mode_row(mode)
    mask = np.ones((layers, len(MODES), len(parts)), np.bool_)
    if "perturbed" in parts:
        check_blocks((step,), layers)
        mask[list(step.skip_blocks), row, parts.index("perturbed")] = False
    return mask


def combine_parts(outputs: Mapping[str, Velocity], step: StepGuidance, cfg_star: bool) -> Velocity:
    """The velocity to follow from those of the step's parts, each (B, …) float32, same shape back.

    CFG-star scales the negative before CFG; STG starts from the plain positive; rescaling belongs to STG.
    """
    if set(outputs) != set(parts(step)):
        given = ", ".join(outputs) or "nothing"
        raise InputError(f"this step combines {', '.join(parts(step))}; got {given}")
    velocity = positive = outputs["positive"]
    if "negative" in outputs:
        negative = outputs["negative"]
        negative = guidance.cfg_star(negative, positive) if cfg_star else negative
        velocity = guidance.combine(negative, positive, step.cfg)
    if step.stg <= 0:
        return velocity
    if "perturbed" in outputs:
        velocity = velocity + guidance.stg_delta(positive, outputs["perturbed"], step.stg)
    return velocity if step.rescale == 1 else guidance.rescale(velocity, positive, step.rescale)


def _mapping(timesteps: tuple[float, ...] | None, sigmas: NDArray[np.floating]) -> list[int]:
    """The list entry of each sigma, compared in fp32: there 0.985 computed and 0.985 typed are equal."""
    if timesteps is None:
        return [0] * len(sigmas)
    reached = np.asarray(timesteps, np.float32)[None, :] <= np.asarray(sigmas, np.float32)[:, None]
    last = len(timesteps) - 1
    return [int(row.argmax()) if row.any() else last for row in reached]


def _entry(lists: GuidanceLists, j: int) -> StepGuidance:
    def at(name: str) -> int:
        return j if len(getattr(lists, name)) > 1 else 0

    return StepGuidance(
        lists.guidance_scale[at("guidance_scale")],
        lists.stg_scale[at("stg_scale")],
        lists.rescaling_scale[at("rescaling_scale")],
        lists.skip_block_list[at("skip_block_list")],
    )


def _check_length(name: str, length: int, timesteps: tuple[float, ...] | None) -> None:
    if length == 1 or (timesteps is not None and length == len(timesteps)):
        return
    if timesteps is None:
        raise InputError(
            f"{setting(name)} has {length} entries but there are no {setting('guidance_timesteps')} to say "
            f"where each begins; give one entry, or {setting('guidance_timesteps')} of the same length"
        )
    raise InputError(
        f"{setting(name)} has {length} entries and {setting('guidance_timesteps')} {len(timesteps)}; "
        f"give 1 or {len(timesteps)}"
    )


def _mode_row(mode: str) -> int:
    if mode not in MODES:
        raise InputError(f"{setting('stg_mode')} {quoted(mode)} is not known; known are {', '.join(MODES)}")
    return MODES.index(mode)
