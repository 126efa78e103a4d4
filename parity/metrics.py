"""How far two arrays are apart, where one number is enough; `parity.check.compare` has the others."""

from __future__ import annotations

import math

import numpy as np


def relative_l2(ours: np.ndarray, theirs: np.ndarray) -> float:
    """|ours − theirs| / |theirs| in float64; infinite where shapes differ or it is not finite."""
    if ours.shape != theirs.shape:
        return math.inf
    wanted = theirs.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        distance = float(np.linalg.norm(ours - wanted) / np.linalg.norm(wanted))
    return distance if math.isfinite(distance) else math.inf
