"""Images and videos as programs give them: files, Pillow's images, arrays of pixels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ltxrt.engines.errors import InputError, setting

if TYPE_CHECKING:
    from PIL.Image import Image

    from ltxrt.runtime.media.preprocess import Picture
else:
    Image = Any  # most runs read no image and need not load Pillow

Media = Path | str | Image | Sequence[Image] | NDArray[np.uint8] | NDArray[np.float32]
"""A file; an image of Pillow or, for a video, several; (H,W,3) or (F,H,W,3) uint8: they have any size and are
fitted to the video. (3,H,W) or (3,F,H,W) float32 in −1..1 have the video's size and are used as they are."""

Kept = Path | str | NDArray[np.uint8] | NDArray[np.float32]
"""What a request keeps of them: a file's name or an array."""

_ALLOWED = (
    "a file, an image of Pillow, or an array: uint8 (height, width, 3) or float32 (3, height, width) in "
    "-1..1; of a video, uint8 (frames, height, width, 3) or float32 (3, frames, height, width)"
)


def kept(media: Any, label: str) -> Kept:
    """What a request keeps of `media`. InputError, beginning with `label`, for anything else.

    A Pillow image is converted as a file is: upright, transparency over black, (H,W,3) uint8.
    """
    if isinstance(media, Path | str):
        return media
    if isinstance(media, np.ndarray):
        return _array(media, label)
    from PIL import Image as pillow

    from ltxrt.runtime.media.images import from_pillow

    if isinstance(media, pillow.Image):
        return from_pillow(media, label)
    if isinstance(media, list | tuple) and media and all(isinstance(one, pillow.Image) for one in media):
        frames = [from_pillow(one, label) for one in media]
        if len({frame.shape for frame in frames}) > 1:
            raise InputError(f"{label}: its images have several sizes; give images of one size")
        return np.stack(frames)
    raise InputError(f"{label} is of type {type(media).__name__}; it must be {_ALLOWED}")


def shown(value: Any) -> str:
    """`repr`, and an array by its type and shape."""
    return f"<{value.dtype} {value.shape}>" if isinstance(value, np.ndarray) else repr(value)


def is_fitted(media: Kept) -> bool:
    """Whether it has any size and is fitted to the video's; float32 pixels are used as they are."""
    return not (isinstance(media, np.ndarray) and media.dtype == np.float32)


def frames(array: NDArray[Any]) -> Sequence[Picture]:
    """The frames (H,W,3) of an array (H,W,3) or (F,H,W,3) of uint8."""
    return list(array) if array.ndim == 4 else [array]


def _array(array: NDArray[Any], label: str) -> NDArray[Any]:
    channels = {np.dtype(np.uint8): -1, np.dtype(np.float32): 0}.get(array.dtype)
    if channels is None or array.ndim not in (3, 4) or array.shape[channels] != 3 or 0 in array.shape:
        raise InputError(f"{label} {array.dtype} {array.shape}: it must be {_ALLOWED}")
    return array


def kept_media(media: Any, name: str) -> Kept | None:
    """`kept` for the setting `name`; None where there is none."""
    return None if media is None else kept(media, setting(name))
