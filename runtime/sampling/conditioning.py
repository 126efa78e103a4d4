"""Conditioning on an image: which tokens are given, how strongly, and at which timestep each token is.

A token's mask is its strength: 0 is free, 1 is given and never denoised, between them it joins the denoising
once sigma has come down to 1 − strength. Reference: official `prepare_conditioning` and `denoising_step`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ltxrt.engines.errors import InputError
from ltxrt.runtime.sampling.latents import pack

Array = NDArray[np.float32]

EPSILON = np.float32(1e-6)


def frame_zero(latents: Array, image_latents: Array, strength: float) -> tuple[Array, Array]:
    """Put an image, or the beginning of a video, at the start of the noise.

    latents (1, C, f, h, w) noise; image_latents (1, C, n, h, w), n ≤ f, normalised. Returns the mixed
    latents and the mask (1, f·h·w). Raises InputError for a strength outside 0..1 or sizes that differ.
    """
    if not 0.0 <= strength <= 1.0:
        raise InputError(f"image strength {strength}: must be between 0 and 1")
    frames = image_latents.shape[2]
    start = latents[:, :, :frames]
    if start.shape != image_latents.shape:
        raise InputError(f"image latents {image_latents.shape} do not fit latents {latents.shape}")
    mixed = latents.copy()
    mixed[:, :, :frames] = lerp(start, image_latents, strength)
    mask = np.zeros((latents.shape[0], 1, *latents.shape[2:]), np.float32)
    mask[:, :, :frames] = strength
    return mixed, pack(mask)[..., 0]


def distinct_timesteps(sigma: float, mask: Array) -> tuple[Array, NDArray[np.int64]]:
    """min(sigma, 1 − mask) per token, as distinct values (1, K) and each token's index into them (1, N).

    The values are told apart by mask, free tokens first, not by timestep: K and the index are the same at
    every step of a request, so that an engine may keep the index on the device.
    """
    strengths, index = np.unique(mask, return_inverse=True)
    timesteps = np.minimum(np.float32(sigma), np.float32(1) - strengths)
    return timesteps[None], index.reshape(mask.shape).astype(np.int64)


def add_image_noise(
    latents: Array, initial: Array, mask: Array, noise: Array, scale: float, sigma: float
) -> Array:
    """Tokens that are given outright become initial + scale · noise · sigma²; the others stay.

    Keeps motion alive: a perfectly clean first frame invites a still video. latents, initial and noise are
    (1, N, C), mask is (1, N).
    """
    given = (mask > np.float32(1) - EPSILON)[..., None]
    return np.where(given, initial + np.float32(scale) * noise * np.float32(sigma) ** 2, latents)


def denoised(before: Array, after: Array, mask: Array, sigma: float) -> Array:
    """The step's result for the tokens whose denoising has begun, the old value for the others; (1, N, C)."""
    begun = (np.float32(sigma) - EPSILON < np.float32(1) - mask)[..., None]
    return np.where(begun, after, before)


def lerp(start: Array, end: Array, weight: float) -> Array:
    """torch.lerp: from whichever side is nearer, so that weights 0 and 1 are exact."""
    step = end - start
    if weight < 0.5:
        return start + np.float32(weight) * step
    return end - step * np.float32(1.0 - weight)
