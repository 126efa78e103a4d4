"""Images and videos as conditions: their latents among the tokens, and at which timestep each token is.

A token's strength is how far it is fixed: 0 is free, 1 is fixed and never denoised; in between, denoising of
the token begins when sigma has come down to 1 − strength. References: official `prepare_conditioning` and
`denoising_step`; diffusers `LTXConditionPipeline.prepare_latents`. Knows neither files nor engines.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ltxrt.engines.errors import InputError
from ltxrt.engines.parsing.sizes import nearest_sizes
from ltxrt.runtime.noise.cpu import Noise
from ltxrt.runtime.sampling.latents import LatentShape, pack

Array = NDArray[np.float32]
Coordinates = Callable[[LatentShape, int], Array]  # cells that begin at a frame → (3,N) in pixels and seconds

EPSILON = np.float32(1e-6)
PREFIX_FRAMES = 2  # latent frames of a later sequence that join as tokens of their own


@dataclass(frozen=True)
class Item:
    """A condition: its first frame in the video, its pixel frames, its strength, and what the user wrote."""

    start_frame: int
    frames: int
    strength: float
    name: str


@dataclass(frozen=True)
class Strengths:
    """The strength of each token, as distinct values (K,) and each token's index into them (1,N).

    Distinct by strength, free tokens first, instead of by timestep: so K and the index are the same at every
    step of a pass, and an engine may keep the index on the device.
    """

    distinct: Array
    index: NDArray[np.int64]

    @classmethod
    def of(cls, tokens: Array) -> Self:
        """From the strength of each token, (1,N)."""
        distinct, index = np.unique(tokens, return_inverse=True)
        return cls(distinct, index.reshape(tokens.shape).astype(np.int64))

    @property
    def tokens(self) -> Array:
        """The strength of each token, (1,N)."""
        return self.distinct[self.index]

    def timesteps(self, sigma: float) -> Array:
        """min(sigma, 1 − strength) of each distinct strength, (1,K)."""
        return np.minimum(np.float32(sigma), np.float32(1) - self.distinct)[None]


@dataclass(frozen=True)
class TokenStream:
    """One modality's tokens (1,N,C) at the start of a pass, with its conditions among them.

    coords: where each token is, (axes,N), for the rotary tables; own: which tokens are the target's own, and
    not a condition's.
    """

    tokens: Array
    coords: Array
    strengths: Strengths
    own: slice


def check(items: Sequence[Item], num_frames: int, time: int) -> None:
    """Raise InputError for items that do not fit a video of `num_frames`, with what is allowed.

    `time` is how many pixel frames a latent frame holds.
    """
    for item in items:
        _check_place(item, num_frames)
        _check_sequence(item, time)
    for first, second in pairwise([item for item in items if item.start_frame == 0]):
        raise InputError(
            f"{first.name} and {second.name} both begin at frame 0; give one of them another frame"
        )


def own_frames(item: Item, time: int) -> int:
    """How many latent frames of an item become tokens of their own."""
    if item.start_frame == 0:
        return 0
    return min((item.frames - 1) // time + 1, PREFIX_FRAMES)


def prepare(
    tokens: Array,
    shape: LatentShape,
    encoded: Sequence[tuple[Item, Array]],
    noise: Noise,
    coordinates: Coordinates,
    time: int,
) -> TokenStream:
    """The noise `tokens` (1,N,C) of a video of `shape` with each item's normalised latents (1,C,n,h,w) in it.

    An item at frame 0 is mixed in by its strength. A single image elsewhere becomes tokens of its own, mixed
    with fresh noise, whose rotary times start at its frame. Of a sequence elsewhere the first two latent
    frames become such tokens (they encode another stretch of time than latent frames in mid-video), the
    others are mixed in. Noise is drawn for each item's own tokens, in the items' order; they stand in front.
    """
    tokens, strengths = tokens.copy(), np.zeros(tokens.shape[:2], np.float32)
    extra: list[tuple[Array, Array, Array]] = []
    for item, latents in encoded:
        own = own_frames(item, time)
        begin = (item.start_frame // time + own) if latents.shape[2] > own else 0
        _mix(tokens, strengths, latents[:, :, own:], shape, begin, item.strength)
        if own:
            drawn = pack(lerp(noise(latents[:, :, :own].shape), latents[:, :, :own], item.strength))
            coords = coordinates(LatentShape(own, *latents.shape[3:]), item.start_frame)
            extra.append((drawn, coords, np.full(drawn.shape[:2], item.strength, np.float32)))
    everything = [*extra, (tokens, coordinates(shape, 0), strengths)]
    return TokenStream(
        np.concatenate([one for one, _, _ in everything], axis=1),
        np.concatenate([coords for _, coords, _ in everything], axis=1),
        Strengths.of(np.concatenate([strength for _, _, strength in everything], axis=1)),
        slice(sum(one.shape[1] for one, _, _ in extra), None),
    )


def add_image_noise(
    latents: Array, initial: Array, strengths: Array, noise: Array, scale: float, sigma: float
) -> Array:
    """Tokens of strength 1 become initial + scale · noise · sigma²; the others are unchanged.

    This preserves motion: a perfectly clean first frame tends to give a still video. latents, initial and
    noise are (1,N,C), strengths (1,N).
    """
    fixed = (strengths > np.float32(1) - EPSILON)[..., None]
    return np.where(fixed, initial + np.float32(scale) * noise * np.float32(sigma) ** 2, latents)


def denoised(before: Array, after: Array, strengths: Array, sigma: float) -> Array:
    """The step's result for tokens whose denoising has begun, the old value for the others; (1,N,C)."""
    begun = (np.float32(sigma) - EPSILON < np.float32(1) - strengths)[..., None]
    return np.where(begun, after, before)


def lerp(start: Array, end: Array, weight: float) -> Array:
    """torch.lerp: from whichever side is nearer, so that weights 0 and 1 are exact."""
    step = end - start
    if weight < 0.5:
        return start + np.float32(weight) * step
    return end - step * np.float32(1.0 - weight)


def _mix(
    tokens: Array, strengths: Array, latents: Array, shape: LatentShape, begin: int, strength: float
) -> None:
    """Mix `latents` (1,C,n,h,w) into the tokens of a video of `shape` from latent frame `begin` on."""
    count, channels = latents.shape[2], tokens.shape[2]
    if latents.shape != LatentShape(count, shape.height, shape.width).grid(channels) or (
        begin + count > shape.frames
    ):
        grid = shape.grid(channels)
        raise InputError(f"image latents {latents.shape} do not fit latents {grid} at frame {begin}")
    frame = shape.height * shape.width
    place = slice(begin * frame, (begin + count) * frame)
    tokens[:, place] = lerp(tokens[:, place], pack(latents), strength)
    strengths[:, place] = strength


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
