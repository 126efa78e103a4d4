"""Several images and videos as conditions: their latents among the tokens, as the official pipeline puts
them.

Reference: official `prepare_conditioning`; diffusers `LTXConditionPipeline.prepare_latents`. Files and
engines are not known here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ltxrt.engines.errors import InputError
from ltxrt.engines.families.ltxv.facts import VaeFacts
from ltxrt.engines.parsing.sizes import nearest_sizes
from ltxrt.runtime.noise.cpu import Noise
from ltxrt.runtime.sampling.conditioning import lerp
from ltxrt.runtime.sampling.latents import LatentShape, pack
from ltxrt.runtime.sampling.rope import coordinates

Array = NDArray[np.float32]

PREFIX_FRAMES = 2  # latent frames of a later sequence that join as tokens of their own


@dataclass(frozen=True)
class Item:
    """A condition: its first frame in the video, its pixel frames, its strength, and what the user wrote."""

    start_frame: int
    frames: int
    strength: float
    name: str


@dataclass(frozen=True)
class Conditioned:
    """tokens (1,E+N,C) with E extra ones in front, their rotary coords (3,E+N) and strengths (1,E+N)."""

    tokens: Array
    coords: Array
    mask: Array
    extra: int


def check(items: Sequence[Item], num_frames: int, vae: VaeFacts) -> None:
    """Refuse items that do not fit a video of `num_frames`; InputError names the item and what is allowed."""
    for item in items:
        _check_place(item, num_frames)
        _check_sequence(item, vae.temporal_compression)
    for first, second in pairwise([item for item in items if item.start_frame == 0]):
        raise InputError(
            f"{first.name} and {second.name} both begin at frame 0; give one of them another frame"
        )


def prepare(
    grid: Array,
    encoded: Sequence[tuple[Item, Array]],
    noise: Noise,
    frame_rate: float,
    causal: bool,
    vae: VaeFacts,
) -> Conditioned:
    """The noise `grid` (1,C,f,h,w) with each item's normalised latents (1,C,n,h,w) in it, as tokens.

    An item at frame 0 is mixed in by its strength. A single image elsewhere becomes tokens of its own, mixed
    with fresh noise, whose rotary times start at its frame. Of a sequence elsewhere the first two latent
    frames become such tokens (they encode another stretch of time than latent frames in mid-video), the
    others are mixed in. Noise is drawn for each item's own tokens, in the items' order.
    """
    grid, mask = grid.copy(), np.zeros((1, 1, *grid.shape[2:]), np.float32)
    extra: list[tuple[Array, Array, float]] = []
    for item, latents in encoded:
        tokens = latents
        if item.start_frame == 0:
            tokens = _put(grid, mask, latents, 0, item.strength)
        elif item.frames > 1:
            begin = item.start_frame // vae.temporal_compression + PREFIX_FRAMES
            _put(grid, mask, latents[:, :, PREFIX_FRAMES:], begin, item.strength)
            tokens = latents[:, :, :PREFIX_FRAMES]
        if tokens.shape[2]:
            drawn = lerp(noise(tokens.shape), tokens, item.strength)
            shape = LatentShape(*tokens.shape[2:])
            coords = coordinates(shape, frame_rate, causal, vae, item.start_frame)
            extra.append((pack(drawn), coords, item.strength))
    coords = coordinates(LatentShape(*grid.shape[2:]), frame_rate, causal, vae)
    strengths = [np.full(tokens.shape[:2], strength, np.float32) for tokens, _, strength in extra]
    return Conditioned(
        np.concatenate([*(tokens for tokens, _, _ in extra), pack(grid)], axis=1),
        np.concatenate([*(own for _, own, _ in extra), coords], axis=1),
        np.concatenate([*strengths, pack(mask)[..., 0]], axis=1),
        sum(tokens.shape[1] for tokens, _, _ in extra),
    )


def strip(tokens: Array, extra: int) -> Array:
    """The video's own tokens (1,N,C) of tokens (1,E+N,C)."""
    return tokens[:, extra:]


def _put(grid: Array, mask: Array, latents: Array, begin: int, strength: float) -> Array:
    """Mix `latents` into the grid from latent frame `begin` on; returns none, as none are left over."""
    end = begin + latents.shape[2]
    if grid[:, :, begin:end].shape != latents.shape:
        raise InputError(f"image latents {latents.shape} do not fit latents {grid.shape} at frame {begin}")
    grid[:, :, begin:end] = lerp(grid[:, :, begin:end], latents, strength)
    mask[:, :, begin:end] = strength
    return latents[:, :, :0]


def _check_place(item: Item, num_frames: int) -> None:
    if not 0.0 <= item.strength <= 1.0:
        raise InputError(f"{item.name}: strength {item.strength:g} must be between 0 and 1")
    if not 0 <= item.start_frame < num_frames:
        raise InputError(f"{item.name}: frame {item.start_frame} must be between 0 and {num_frames - 1}")
    if item.start_frame + item.frames > num_frames:
        raise InputError(
            f"{item.name}: {item.frames} frames from frame {item.start_frame} pass the video's {num_frames}; "
            f"begin at frame {max(num_frames - item.frames, 0)} or earlier, or give fewer"
        )


def _check_sequence(item: Item, time: int) -> None:
    if item.frames == 1:
        return
    if item.frames % time != 1:
        near = " and ".join(map(str, nearest_sizes(item.frames, time, 1)))
        raise InputError(
            f"{item.name}: a video of {item.frames} frames must have {time}k+1; nearest are {near}"
        )
    if item.start_frame % time:
        below = item.start_frame // time * time
        raise InputError(
            f"{item.name}: a video must begin on a multiple of {time}; nearest to {item.start_frame} are "
            f"{below} and {below + time}"
        )
