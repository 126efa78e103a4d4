"""The denoising loop: noise to latents along a schedule of sigmas, in fp32, for one or more streams.

It knows streams by name ("video"), their tokens and a velocity function; engines, guidance, prompts and
progress bars belong to its caller.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ltxrt.runtime.noise.cpu import Noise
from ltxrt.runtime.sampling.conditioning import Strengths, TokenStream, add_image_noise, denoised
from ltxrt.runtime.sampling.schedule import next_sigma

Array = NDArray[np.float32]
Arrays = Mapping[str, Array]  # by the stream's name

# latents (1,N,C), distinct timesteps (1,K), step index → velocities noise − x0, guided (1,N,C)
Velocity = Callable[[Arrays, Arrays, int], Arrays]


@dataclass(frozen=True)
class Step:
    """The result of one step: its index, the sigma it started from, and each stream's latents (1,N,C).

    `clean` are the latents without noise that the step predicts.
    """

    index: int
    sigma: float
    latents: Arrays
    clean: Arrays = field(default_factory=dict)


@dataclass(frozen=True)
class Sampling:
    """How the loop departs from plain Euler steps.

    image_noise_scale: add noise times this · sigma² to tokens of strength 1 before each step; stochastic:
    predict x0 and add new noise from this source, instead of an Euler step.
    """

    image_noise_scale: float = 0.0
    stochastic: Noise | None = None


def denoise(
    velocity: Velocity,
    streams: Mapping[str, TokenStream],
    sigmas: Array,
    noise: Noise,
    sampling: Sampling = Sampling(),
) -> Iterator[Step]:
    """Yield a Step after each sigma of the descending schedule `sigmas` (n,); the last one ends at 0.

    A token at timestep t goes to the next sigma below t, whichever step this is (official
    `RectifiedFlowScheduler.step`). `noise` is drawn from only where `sampling` re-noises an image. The
    official pipeline draws a stochastic step's noise from another generator, so `sampling.stochastic` is a
    source of its own. Where there are several streams, each draws in their order.
    """
    latents: Arrays = {name: stream.tokens for name, stream in streams.items()}
    scale = sampling.image_noise_scale
    for index, sigma in enumerate(map(float, sigmas)):
        if scale > 0:
            latents = {
                name: add_image_noise(
                    latents[name], one.tokens, one.strengths.tokens, noise(one.tokens.shape), scale, sigma
                )
                for name, one in streams.items()
            }
        timesteps = {name: one.strengths.timesteps(sigma) for name, one in streams.items()}
        velocities = velocity(latents, timesteps, index)
        clean = {
            name: _clean(latents[name], velocities[name], one.strengths, sigma)
            for name, one in streams.items()
        }
        latents = {
            name: _after(latents[name], velocities[name], one.strengths, sigma, sigmas, sampling)
            for name, one in streams.items()
        }
        yield Step(index, sigma, latents, clean)


def _clean(latents: Array, velocity: Array, strengths: Strengths, sigma: float) -> Array:
    """One stream's tokens (1,N,C) as the step at `sigma` predicts them without noise."""
    current = strengths.timesteps(sigma)[0][strengths.index][..., None]
    return denoised(latents, latents - current * velocity, strengths.tokens, sigma)


def _after(
    latents: Array, velocity: Array, strengths: Strengths, sigma: float, sigmas: Array, sampling: Sampling
) -> Array:
    """One stream's tokens (1,N,C) after the step at `sigma`."""
    current = strengths.timesteps(sigma)[0][strengths.index][..., None]
    following = next_sigma(sigmas, current)
    if sampling.stochastic:
        x0 = latents - current * velocity
        after = (np.float32(1) - following) * x0 + following * sampling.stochastic(latents.shape)
    else:
        after = latents - (current - following) * velocity
    return denoised(latents, after, strengths.tokens, sigma)
