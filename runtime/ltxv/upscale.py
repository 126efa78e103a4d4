"""Between two passes: the first pass's size, the statistics of upsampled latents, tone mapping.

Reference: official `LTXMultiScalePipeline`, `adain_filter_latent` and `tone_map_latents`; diffusers
`pipeline_ltx_latent_upsample.py`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ltxrt.engines.backend import Engine
from ltxrt.engines.errors import InputError, setting
from ltxrt.engines.families.ltxv.facts import VaeFacts
from ltxrt.runtime.sampling.numerics import check_finite

Array = NDArray[np.float32]


def first_pass_size(height: int, width: int, factor: float, vae: VaeFacts) -> tuple[int, int]:
    """`factor` of a size in pixels, each side cut down to a whole number of latent cells.

    Raises InputError where nothing is left.
    """
    cell = vae.spatial_compression
    small = tuple(int(side * factor) // cell * cell for side in (height, width))
    if min(small) < cell:
        raise InputError(
            f"{setting('downscale_factor')} {factor:g} of {height}x{width} leaves {small[0]}x{small[1]}; "
            "give a larger factor or a larger size"
        )
    return small[0], small[1]


def upsample(latents: Array, factor: float, upsampler: Engine) -> Array:
    """Latents (1,C,f,h,w) at twice the height and width, with the statistics of the smaller by `factor`."""
    larger = upsampler(latents=latents)["upsampled"]
    check_finite(larger, "latent_upsampler", "the first pass's latents")
    return adain(larger, latents, factor) if factor > 0 else larger


def adain(latents: Array, reference: Array, factor: float = 1.0) -> Array:
    """`latents` (B,C,…) with the mean and standard deviation of `reference` (B,C,…), per sample and channel.

    `factor` goes from 0, unchanged, to 1; the deviations are unbiased.
    """
    mean, std = _statistics(latents)
    wanted_mean, wanted_std = _statistics(reference)
    matched = (latents - mean) / std * wanted_std + wanted_mean
    return latents + np.float32(factor) * (matched - latents)


def tone_map(latents: Array, ratio: float) -> Array:
    """Latents with large values compressed: `ratio` from 0, unchanged, to 1; any shape."""
    strength = np.float32(0.75 * ratio)
    one = np.float32(1)
    sigmoid = one / (one + np.exp(np.float32(-4) * strength * (np.abs(latents) - one)))
    return latents * (one - np.float32(0.8) * strength * sigmoid)


def renoise(latents: Array, noise: Array, sigma: float) -> Array:
    """sigma·noise + (1 − sigma)·latents: where a denoising from `sigma` starts."""
    return np.float32(sigma) * noise + np.float32(1 - sigma) * latents


def _statistics(latents: Array) -> tuple[Array, Array]:
    axes = tuple(range(2, latents.ndim))
    mean = latents.mean(axis=axes, keepdims=True, dtype=np.float64)
    std = latents.std(axis=axes, keepdims=True, ddof=1, dtype=np.float64)
    return mean.astype(np.float32), std.astype(np.float32)
