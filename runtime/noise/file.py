"""Initial latents from a `.npy` file, to compare with another implementation.

The format is that of `numpy.lib.format`: a header with type, order and shape, then the values.
"""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from ltxrt.engines.errors import InputError, setting

_HEADER_BYTES = 4096  # bytes read for the header; NumPy writes 128


def own(noise: Path | str | NDArray[np.float32] | None, shape: tuple[int, ...]) -> NDArray[np.float32] | None:
    """A request's own noise, an array or a file of `shape`, checked; None if it has none.

    Raises InputError for another shape or type, and as `load` does.
    """
    if isinstance(noise, str | Path):
        return load(Path(noise), shape)
    if noise is not None and (noise.shape != shape or noise.dtype != np.float32):
        raise InputError(f"{setting('noise')} {noise.dtype} {noise.shape}: must be float32 {shape}")
    return noise


def load(path: Path, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """The array at `path` as float32 of `shape`, (1, C, f, h, w); a file without the batch axis is accepted
    too.

    Reads no more than a short header and the values of `shape`. Raises InputError for a file that is missing,
    not regular, truncated, not .npy, not of floats, of another shape, or not finite.
    """
    label = f"{setting('noise')} {path}"
    from ltxrt.runtime.media.readers import check_regular  # loads Pillow

    check_regular(path, label)
    try:
        with path.open("rb") as file:
            array = _array(file, shape, label)
    except OSError as error:
        raise InputError(f"{label}: cannot be read ({error.strerror or error})") from error
    if not np.isfinite(array).all():
        raise InputError(f"{label}: holds NaN or Inf; noise must be finite")
    return array


def _array(file: IO[bytes], shape: tuple[int, ...], label: str) -> NDArray[np.float32]:
    found, columns_first, dtype = _header(file, label)
    if dtype not in (np.float32, np.float16):
        raise InputError(f"{label}: must be a .npy array of float32 or float16")
    if found not in (shape, shape[1:]):
        raise InputError(f"{label}: has shape {_shown(found)}; this request takes {shape}")
    count = math.prod(shape)
    values = np.fromfile(file, dtype, count)
    if values.size < count:
        raise _not_whole(label)
    array = values.reshape(found, order="F") if columns_first else values.reshape(found)
    return np.ascontiguousarray(array, np.float32).reshape(shape)


def _header(file: IO[bytes], label: str) -> tuple[tuple[int, ...], bool, np.dtype[np.generic]]:
    """Shape, whether the first axis varies fastest, and type; leaves the file at the first value."""
    head = io.BytesIO(file.read(_HEADER_BYTES))
    try:
        read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[npy.read_magic(head)]
        found = read(head)
    except Exception as error:  # the header is Python text, whose parser raises several types
        raise _not_whole(label) from error
    file.seek(head.tell())
    return found


def _shown(shape: tuple[int, ...]) -> str:
    whole = len(shape) <= 8 and all(abs(size) < 10**9 for size in shape)
    return str(shape) if whole else f"of {len(shape)} axes that no file holds"


def _not_whole(label: str) -> InputError:
    return InputError(f"{label}: is not a complete .npy array of numbers; save it with np.save")
