"""Noise from a file, to compare with another implementation: a `.npy` array of the initial latents."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ltxrt.engines.errors import InputError


def load(path: Path, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """The array at `path` as float32 of `shape`, (1, C, f, h, w); a file without the batch axis is taken too.

    Raises InputError for a file that is missing, cut, no .npy, not of floats, of another shape, or not
    finite.
    """
    try:
        array = np.load(path, allow_pickle=False, mmap_mode="r")
    except OSError as error:
        raise InputError(f"--noise-file {path}: cannot be read ({error.strerror or error})") from error
    except (ValueError, EOFError) as error:
        raise InputError(
            f"--noise-file {path}: is no whole .npy array of numbers; save it with np.save"
        ) from error
    if not isinstance(array, np.ndarray) or array.dtype not in (np.float32, np.float16):
        raise InputError(f"--noise-file {path}: must be a .npy array of float32 or float16")
    if array.shape not in (shape, shape[1:]):
        raise InputError(f"--noise-file {path}: has shape {array.shape}; this request takes {shape}")
    noise = np.array(array, np.float32).reshape(shape)
    if not np.isfinite(noise).all():
        raise InputError(f"--noise-file {path}: holds NaN or Inf; noise must be finite")
    return noise
