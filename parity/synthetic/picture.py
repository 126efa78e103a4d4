"""A picture to start videos from where none is given."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def picture(height: int, width: int) -> NDArray[np.float32]:
    """Pixels (3, height, width) in −1..1 with edges, slopes and texture: something for an encoder to see."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    waves = np.sin(x / 7 + y / 5)
    disc = ((x - 0.6 * width) ** 2 + (y - 0.4 * height) ** 2 < (0.2 * height) ** 2).astype(np.float32)
    red = 2 * y / height - 1
    green = 0.6 * waves
    blue = 1 - 2 * x / width
    return np.stack([red, green, blue]).clip(-1, 1) * (1 - disc) + disc * 0.9
