"""How far two arrays or videos are apart, in one number; `parity.check.compare` has the others."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

_WINDOW = 8  # pixels a side, for SSIM
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2  # of Wang et al. 2004, for 8 bits


def relative_l2(ours: np.ndarray, theirs: np.ndarray) -> float:
    """|ours − theirs| / |theirs| in float64; infinite where shapes differ or it is not finite."""
    if ours.shape != theirs.shape:
        return math.inf
    wanted = theirs.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        distance = float(np.linalg.norm(ours - wanted) / np.linalg.norm(wanted))
    return distance if math.isfinite(distance) else math.inf


def cosine(theirs: NDArray[Any], ours: NDArray[Any]) -> float:
    """Of the flattened arrays; 0 where one of them is."""
    a, b = theirs.astype(np.float64).ravel(), ours.astype(np.float64).ravel()
    return float(a @ b) / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-300)


def frames_psnr(theirs: NDArray[np.uint8], ours: NDArray[np.uint8]) -> float | None:
    """Of 8-bit frames in decibels; None where they are equal."""
    error = float(np.mean((theirs.astype(np.float64) - ours.astype(np.float64)) ** 2))
    return None if error == 0 else 10 * math.log10(255**2 / error)


def frames_ssim(theirs: NDArray[np.uint8], ours: NDArray[np.uint8]) -> float:
    """Mean structural similarity (Wang et al. 2004) of the frames' luma, over even windows of 8x8 pixels."""
    first, second = (_windows(frames @ np.array([0.299, 0.587, 0.114])) for frames in (theirs, ours))
    mean_a, mean_b = first.mean(-1), second.mean(-1)
    covariance = (first * second).mean(-1) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + _C1) / (mean_a**2 + mean_b**2 + _C1)
    structure = (2 * covariance + _C2) / (first.var(-1) + second.var(-1) + _C2)
    return float((luminance * structure).mean())


def _windows(luma: NDArray[np.float64]) -> NDArray[np.float64]:
    """(F,H,W) to (F,H/8,W/8,64); sizes are multiples of 32."""
    f, h, w = luma.shape
    cut = luma.reshape(f, h // _WINDOW, _WINDOW, w // _WINDOW, _WINDOW)
    return cut.transpose(0, 1, 3, 2, 4).reshape(f, h // _WINDOW, w // _WINDOW, _WINDOW**2)
