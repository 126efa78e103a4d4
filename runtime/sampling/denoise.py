"""The denoising loop: noise to latents along a schedule of sigmas, in fp32.

It knows tokens and a velocity function; engines, guidance, prompts and progress bars belong to its caller.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ltxrt.runtime.noise.cpu import Noise
from ltxrt.runtime.sampling.conditioning import add_image_noise, denoised, distinct_timesteps
from ltxrt.runtime.sampling.schedule import next_sigma

Array = NDArray[np.float32]

# latents (1, N, C), timesteps (1, K), timestep_index (1, N), step index
# → velocity noise − x0, guided (1, N, C)
Velocity = Callable[[Array, Array, NDArray[np.int64], int], Array]


@dataclass(frozen=True)
class Step:
    """What one step left: its index, the sigma it started from, and the latents (1, N, C) after it."""

    index: int
    sigma: float
    latents: Array


@dataclass(frozen=True)
class Sampling:
    """How the loop departs from plain Euler steps over free tokens.

    mask: (1, N), the strength of each given token; image_noise_scale: re-noise the tokens given outright by
    this · sigma² before each step; stochastic: predict x0 and noise it afresh from this source, instead of an
    Euler step.
    """

    mask: Array | None = None
    image_noise_scale: float = 0.0
    stochastic: Noise | None = None


def denoise(
    velocity: Velocity, latents: Array, sigmas: Array, noise: Noise, sampling: Sampling = Sampling()
) -> Iterator[Step]:
    """Yield a Step after each sigma of the descending schedule `sigmas` (n,); the last one ends at 0.

    latents (1, N, C) float32, already mixed with the conditioning. A token at timestep t goes to the next
    sigma below t, whichever step this is (official `RectifiedFlowScheduler.step`). `noise` is drawn from only
    where `sampling` re-noises an image. The official pipeline draws a stochastic step's noise from another
    generator, so `sampling.stochastic` is a source of its own.
    """
    initial = latents
    mask = np.zeros(latents.shape[:2], np.float32) if sampling.mask is None else sampling.mask
    renoise = sampling.mask is not None and sampling.image_noise_scale > 0
    for index, sigma in enumerate(map(float, sigmas)):
        if renoise:
            drawn = noise(latents.shape)
            latents = add_image_noise(latents, initial, mask, drawn, sampling.image_noise_scale, sigma)
        timesteps, timestep_index = distinct_timesteps(sigma, mask)
        current = np.take_along_axis(timesteps, timestep_index, axis=1)[..., None]
        following = next_sigma(sigmas, current)
        direction = velocity(latents, timesteps, timestep_index, index)
        if sampling.stochastic:
            x0 = latents - current * direction
            after = (np.float32(1) - following) * x0 + following * sampling.stochastic(latents.shape)
        else:
            after = latents - (current - following) * direction
        latents = denoised(latents, after, mask, sigma)
        yield Step(index, sigma, latents)
