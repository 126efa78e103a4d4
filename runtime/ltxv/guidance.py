"""LTX-Video's guidance: from the lists in presets and settings files to the data of each step.

The mapping of lists to steps is the official pipeline's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ltxrt.engines.errors import InputError, setting
from ltxrt.engines.parsing.text import quoted
from ltxrt.runtime.sampling.guidance import StepGuidance, StreamGuidance

STREAM = "video"
# What a perturbed block computes instead of its self-attention, in the order of the contract's mask rows.
MODES = ("attention_values", "attention_skip", "transformer_block")

# Inclusive bounds of every value of a list.
LIMITS: dict[str, tuple[float, float]] = {
    "guidance_scale": (0, 100),
    "stg_scale": (0, 100),
    "rescaling_scale": (0, 1),
    "guidance_timesteps": (0, 1),
}


@dataclass(frozen=True)
class GuidanceLists:
    """Guidance as in presets and settings files; the defaults mean no guidance.

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


def plan(
    lists: GuidanceLists, sigmas: NDArray[np.floating], layers: int, rescale: float = 0.0
) -> tuple[StepGuidance, ...]:
    """The guidance of each of the descending `sigmas` (n,), for a transformer of `layers` blocks.

    `rescale` is diffusers' guidance_rescale, which follows CFG; 0 is off. Raises InputError for lists that do
    not fit together, values out of range, an unknown mode, and blocks that the transformer lacks.
    """
    check(lists)
    return tuple(_step(lists, j, layers, rescale) for j in _mapping(lists.guidance_timesteps, sigmas))


def unperturbed(steps: Sequence[StepGuidance]) -> int:
    """The number of steps with STG but without blocks to perturb, so that it has no effect."""
    return sum(step.streams[STREAM].stg > 0 and "perturbed" not in step.branches for step in steps)


def check(lists: GuidanceLists) -> None:
    """Raise InputError for lists that no schedule could use, with the list and what is allowed."""
    if lists.mode not in MODES:
        shown = f"{setting('stg_mode')} {quoted(lists.mode)}"
        raise InputError(f"{shown} is not known; known are {', '.join(MODES)}")
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


def _step(lists: GuidanceLists, j: int, layers: int, rescale: float) -> StepGuidance:
    """Entry `j` of the lists: CFG runs above 1, STG above 0 over the blocks named, and rescales unless 1.

    Without blocks to perturb the perturbed velocity would be the positive one, and its difference 0: nothing
    is run for it, and rescaling stays, as in the official pipeline, which runs it all the same. Rescaling of
    1 is off in the official presets, and full strength in diffusers, whose 0 is off.
    """
    cfg, stg, rescaling = (
        entries[j if len(entries) > 1 else 0]
        for entries in (lists.guidance_scale, lists.stg_scale, lists.rescaling_scale)
    )
    blocks = lists.skip_block_list[j if len(lists.skip_block_list) > 1 else 0]
    negative, perturbed = cfg > 1, stg > 0 and bool(blocks)
    if perturbed:
        _check_blocks(blocks, layers)
    row = MODES.index(lists.mode)
    rescales = ((rescaling,) if stg > 0 and rescaling != 1 else ()) + (
        (rescale,) if negative and rescale != 0 else ()
    )
    return StepGuidance(
        {STREAM: StreamGuidance(cfg, stg, rescales=rescales, cfg_star=lists.cfg_star)},
        (*("negative",) * negative, "positive", *("perturbed",) * perturbed),
        {"perturbed": tuple((block, row) for block in blocks)} if perturbed else {},
    )


def _mapping(timesteps: tuple[float, ...] | None, sigmas: NDArray[np.floating]) -> list[int]:
    """The list entry of each sigma, compared in fp32: there 0.985 computed and 0.985 typed are equal."""
    if timesteps is None:
        return [0] * len(sigmas)
    reached = np.asarray(timesteps, np.float32)[None, :] <= np.asarray(sigmas, np.float32)[:, None]
    last = len(timesteps) - 1
    return [int(row.argmax()) if row.any() else last for row in reached]


def _check_blocks(blocks: Sequence[int], layers: int) -> None:
    """Unknown blocks are allowed where STG is off; official files have some."""
    for block in blocks:
        if not 0 <= block < layers:
            raise InputError(
                f"{setting('skip_block_list')} names block {quoted(block)}; this transformer has "
                f"{layers} blocks, 0 to {layers - 1}"
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
