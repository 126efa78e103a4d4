"""Scaling of pixels as torch's `interpolate` does it: bilinear, corners not aligned, without antialiasing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


def resize(frames: Array, height: int, width: int) -> Array:
    """Frames (…,H,W) at another height and width."""
    return _along(_along(frames, height, -2), width, -1)


def _along(frames: Array, size: int, axis: int) -> Array:
    old = frames.shape[axis]
    if old == size:
        return frames
    scale = np.float32(old / size)
    place = np.maximum((np.arange(size, dtype=np.float32) + np.float32(0.5)) * scale - np.float32(0.5), 0)
    low = place.astype(np.int64)
    high = np.minimum(low + 1, old - 1)
    weight = (place - low).astype(np.float32)
    weight = weight[:, None] if axis == -2 else weight
    below, above = np.take(frames, low, axis), np.take(frames, high, axis)
    return below + weight * (above - below)
