"""A user's images and videos: parsing how they are named, counting their frames, reading them as pixels.

A file's type is decided by its content: an animated GIF is a video. Reference: official `inference.py`
(`load_media_file`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ltxrt.engines.errors import InputError
from ltxrt.runtime.media import given
from ltxrt.runtime.media.condition import Condition as Condition
from ltxrt.runtime.media.condition import parse as parse
from ltxrt.runtime.media.images import picture, read_image
from ltxrt.runtime.media.preprocess import Fit, Picture, Preparation, prepare
from ltxrt.runtime.media.readers import (
    FRAME_PIXELS,
    VIDEO_PIXELS,
    check_size,
    check_total,
    damaged,
    is_animation,
    open_image,
    open_video,
)
from ltxrt.runtime.sampling.latents import Compression

if TYPE_CHECKING:
    from PIL import Image

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Decoded:
    """A file's frames up to a limit: their number, and they themselves unless they were too large to keep."""

    count: int
    frames: tuple[Picture, ...] | None

    @property
    def nbytes(self) -> int:
        return sum(frame.nbytes for frame in self.frames or ())


def decode(condition: Condition, limit: int, budget: int = 0) -> Decoded:
    """A file's frames, up to `limit`, one of an image; kept if all of them fit `budget` bytes.

    Raises InputError if it is unreadable.
    """
    kept: list[Picture] = []
    count = size = 0
    for frame in _pictures(condition, limit):
        count, size = count + 1, size + frame.nbytes
        if size > budget:
            kept.clear()
        else:
            kept.append(frame)
    return Decoded(count, tuple(kept) if size <= budget else None)


def count(condition: Condition, limit: int) -> int:
    """How many frames a file has, up to `limit`; 1 for an image. Raises InputError if it is unreadable."""
    return decode(condition, limit).count


def trimmed(frames: int, start: int, num_frames: int, vae: Compression) -> int:
    """How many of a file's frames are used from frame `start` of a video on: 8k+1 (official rule).

    Frames beyond the end are dropped; with a start beyond the end the number is unchanged, to be refused
    later.
    """
    time = vae.temporal_compression
    fitting = min(frames, num_frames - start)
    return (fitting - 1) // time * time + 1 if fitting > 0 else frames


def read(
    condition: Condition,
    fit: Fit,
    num_frames: int,
    vae: Compression | None,
    steps: Preparation,
    decoded: Decoded | None = None,
) -> Array:
    """A file's pixels (3,n,height,width) in −1..1: one frame of an image, the used frames of a video.

    Of a video those are 8k+1; without `vae` all up to `num_frames`.

    `decoded` are its frames, at least those that are used, where they were kept; else the file is read.
    """
    wanted = max(num_frames - condition.frame, 1)
    there = None if decoded is None else decoded.frames
    pictures = _pictures(condition, wanted) if there is None else there[:wanted]
    frames = [prepare(picture, fit, steps) for picture in pictures]
    kept = len(frames) if vae is None else trimmed(len(frames), condition.frame, num_frames, vae)
    return np.stack(frames[:kept], axis=1)


def _pictures(condition: Condition, limit: int) -> Iterator[Picture]:
    """Up to `limit` frames (H,W,3) of a file or an array of uint8, one at a time; one of an image."""
    source = condition.source
    if isinstance(source, np.ndarray):
        yield from given.frames(source)[:limit]
        return
    path = Path(source)
    if _is_image(path, condition.label):
        yield read_image(path, condition.label)
    else:
        yield from _frames(path, condition.label, limit)


def _is_image(path: Path, label: str) -> bool:
    """Whether the file is a single picture."""
    image = open_image(path, label)
    if image is None:
        return False
    with image:
        return not is_animation(image, label)


def _frames(path: Path, label: str, limit: int) -> Iterator[Picture]:
    """Up to `limit` frames (H,W,3) of a video or animation, one at a time. InputError if there are none."""
    image, found, pixels = open_image(path, label), 0, 0
    frames = _video(path, label, limit) if image is None else _animation(image, label, limit)
    for frame in islice(frames, limit):
        found, pixels = found + 1, pixels + frame.shape[0] * frame.shape[1]
        if pixels > VIDEO_PIXELS:  # the header did not say how many frames there are
            check_total(found, (frame.shape[1], frame.shape[0]), label)
        yield frame
    if not found:
        raise InputError(f"{label}: has no frames")


def _animation(image: Image.Image, label: str, limit: int) -> Iterator[Picture]:
    with image:
        there = _number(image, limit, label)
        check_total(min(there, limit), image.size, label)
        for number in range(min(there, limit)):
            with damaged(label):
                try:
                    image.seek(number)
                except EOFError:
                    if image.format == "GIF":  # `there` was not counted
                        return
                    raise
                check_size(image.size, FRAME_PIXELS, label)  # a GIF's canvas can grow from frame to frame
                image.load()
            yield picture(image, label)


def _number(image: Image.Image, limit: int, label: str) -> int:
    """The number of frames; `limit` for a GIF that may have as many, because counting reads all of it."""
    if image.format == "GIF" and limit * image.width * image.height <= VIDEO_PIXELS:
        return limit
    with damaged(label):
        return int(image.n_frames)  # type: ignore[attr-defined]  # only formats with several frames have it


def _video(path: Path, label: str, limit: int) -> Iterator[Picture]:
    with open_video(path, label) as (container, stream):
        check_total(min(stream.frames, limit), (stream.width, stream.height), label)
        decoded = container.decode(stream)
        while (frame := _next(decoded, label)) is not None:
            yield frame


def _next(decoded: Iterator[Any], label: str) -> Picture | None:
    """The next frame, rotated as its container says; None at the end of the video."""
    with damaged(label):
        frame = next(decoded, None)
        if frame is None:
            return None
        check_size((frame.width, frame.height), FRAME_PIXELS, label)
        return np.rot90(frame.to_ndarray(format="rgb24"), getattr(frame, "rotation", 0) // 90)
