"""Checks a component's output: NaN, infinite or constant values end a request where they first appear."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ltxrt.engines.errors import NumericsError

ADVICE = (
    "if it runs in fp16 or fp8, which overflow where values are large, run it in fp32 or bf16; "
    "if it does already, look for damaged weights with ltx-export verify"
)


def check_finite(
    array: NDArray[np.float32 | np.uint8], component: str, where: str, frame_axis: int | None = None
) -> None:
    """Raise NumericsError if `array` has NaN or Inf, or is constant.

    `where` says which call this is ("step 3 of 30"); with `frame_axis` the message names the first bad frame.
    A valid array costs one minimum and one maximum, which reveal NaN and Inf.
    """
    if array.size == 0:
        raise NumericsError(f"{component} returned an empty array {array.shape} at {where}")
    low, high = float(array.min()), float(array.max())
    if np.isfinite(low) and np.isfinite(high):
        if low < high or array.size == 1:
            return
        problem = f"only the value {low:g}"
    else:
        problem = _describe(array, frame_axis)
    raise NumericsError(f"{component} returned {problem} at {where}; {ADVICE}")


def _describe(array: NDArray[np.float32 | np.uint8], frame_axis: int | None) -> str:
    """What is wrong and, along `frame_axis`, from which frame on."""
    bad = ~np.isfinite(array)
    nans = int(np.isnan(array).sum())
    infs = int(bad.sum()) - nans
    kinds = " and ".join(f"{count} {name}" for count, name in ((nans, "NaN"), (infs, "Inf")) if count)
    text = f"{kinds} of {array.size} values"
    if frame_axis is None:
        return text
    others = tuple(axis for axis in range(array.ndim) if axis != frame_axis % array.ndim)
    return f"{text}, from frame {int(bad.any(axis=others).argmax())} on,"
