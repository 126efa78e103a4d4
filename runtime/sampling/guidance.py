"""Guidance: several velocities of one step to the one that is followed.

Each function is one formula of the official pipeline's guidance, over fp32 arrays of any shape (B, …); the
statistics are per sample. Which of them apply at a step is the caller's choice.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Velocity = NDArray[np.float32]


def combine(negative: Velocity, positive: Velocity, scale: float) -> Velocity:
    """Classifier-free guidance: from the negative prompt's velocity through the positive's, `scale` times."""
    return negative + np.float32(scale) * (positive - negative)


def cfg_star(negative: Velocity, positive: Velocity) -> Velocity:
    """The negative velocity scaled to its projection of the positive one (CFG-Zero*, optimised scale)."""
    axes = _sample_axes(negative)
    dot = np.sum(positive * negative, axis=axes, keepdims=True, dtype=np.float64)
    squared = np.sum(negative * negative, axis=axes, keepdims=True, dtype=np.float64)
    return negative * (dot / (squared + 1e-8)).astype(np.float32)


def stg_delta(positive: Velocity, perturbed: Velocity, scale: float) -> Velocity:
    """Spatiotemporal guidance: what to add to the velocity to move away from the perturbed one.

    `positive` is the plain velocity of the positive prompt, also where CFG is active.
    """
    return np.float32(scale) * (positive - perturbed)


def rescale(velocity: Velocity, positive: Velocity, factor: float) -> Velocity:
    """Scale the velocity by r·std(positive) / std(velocity) + (1 − r), r = `factor`.

    The reference applies this only where STG is active and r is not 1: 1 in its presets means off.
    """
    ratio = _std(positive) / _std(velocity)
    return velocity * (np.float32(factor) * ratio + np.float32(1.0 - factor))


def diffusers_rescale(velocity: Velocity, positive: Velocity, phi: float) -> Velocity:
    """diffusers' guidance_rescale (arXiv 2305.08891, section 3.4): `rescale` after CFG, with 0 as off.

    Unlike the official pipeline's it needs no STG, and 1 is its full strength.
    """
    return velocity if phi == 0 else rescale(velocity, positive, phi)


def _std(velocity: Velocity) -> Velocity:
    """Unbiased standard deviation of each sample, (B, 1, …)."""
    deviation = np.std(velocity, axis=_sample_axes(velocity), ddof=1, keepdims=True, dtype=np.float64)
    return np.asarray(deviation, np.float32)


def _sample_axes(velocity: Velocity) -> tuple[int, ...]:
    return tuple(range(1, velocity.ndim))
