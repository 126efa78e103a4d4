"""Rotary tables of the transformer's video tokens.

Angles reach 15 708 rad, where neighbouring fp32 numbers are 1e-3 rad apart: the tables are defined by the
order of the reference's fp32 operations, which is kept here (official `precompute_freqs_cis`, diffusers
`LTXVideoRotaryPosEmbed`). The reference itself moves with the machine: between torch's scalar and vectorised
CPU kernels its tables differ by up to 4e-3. These follow the vectorised ones.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ltxrt.engines.errors import InputError, setting
from ltxrt.runtime.sampling.latents import Compression, LatentShape


def coordinates(
    shape: LatentShape, frame_rate: float, causal: bool, vae: Compression, start_frame: int = 0
) -> NDArray[np.float32]:
    """Top-left corner of each latent cell, (3, N): seconds, pixels down, pixels right.

    A keyframe's own cells begin at its `start_frame` in the video.

    With `causal` the first latent frame covers one pixel frame, so latent frames start at pixel frames
    0, 1, 9, 17, … (compression 8); without it at 0, 8, 16, …
    """
    if not frame_rate > 0:
        raise InputError(f"{setting('frame_rate')} {frame_rate}: must be greater than 0")
    grid = np.indices((shape.frames, shape.height, shape.width)).reshape(3, -1)
    scale = np.array([vae.temporal_compression, vae.spatial_compression, vae.spatial_compression])
    pixels = grid * scale[:, None]
    if causal:
        pixels[0] = np.maximum(pixels[0] + 1 - vae.temporal_compression, 0)
    pixels[0] += start_frame
    coords = pixels.astype(np.float32)
    coords[0] *= np.float32(1.0 / frame_rate)  # a product with the reciprocal, as the reference does
    return coords


def frequencies(width: int, theta: float) -> NDArray[np.float32]:
    """The (width // 6,) angular frequencies π/2 · theta^(0…1), geometric."""
    exponents = _linspace_0_1(width // 6)
    # float64 power rounded once: torch's fp32 power is that too, but for about one column in a hundred
    powers = np.power(theta, exponents.astype(np.float64)).astype(np.float32)
    return powers * np.float32(math.pi) / np.float32(2.0)


def tables(
    coords: NDArray[np.float32], width: int, theta: float, max_positions: tuple[float, float, float]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """cos and sin, each (1, N, width / 2), one column per rotated pair of channels.

    Columns: (width mod 6) / 2 that do not rotate, then for each frequency its (time, height, width) angles.
    The reference holds each column twice.
    """
    fractions = coords / np.asarray(max_positions, np.float32)[:, None]
    centred = fractions * np.float32(2) - np.float32(1)
    angles = (frequencies(width, theta)[None, :, None] * centred.T[:, None, :]).reshape(coords.shape[1], -1)
    still = width % 6 // 2
    cos = np.ones((1, coords.shape[1], width // 2), np.float32)
    sin = np.zeros_like(cos)
    np.cos(angles, out=cos[0, :, still:])
    np.sin(angles, out=sin[0, :, still:])
    return cos, sin


def _linspace_0_1(count: int) -> NDArray[np.float32]:
    """torch.linspace(0, 1, count) in fp32: from both ends to the middle, each value a fused multiply-add.

    A float64 product of two fp32 numbers is exact, so one rounding at the end is the fused operation's.
    """
    if count == 1:
        return np.zeros(1, np.float32)
    step = np.float64(np.float32(1) / np.float32(count - 1))
    index = np.arange(count)
    values = np.where(index < count // 2, step * index, 1 - step * (count - 1 - index))
    return values.astype(np.float32)
