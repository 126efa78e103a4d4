"""Images and videos that a user gives as conditions: naming them, looking at them, reading them as pixels.

What a file is, its content decides: an animated GIF is a video. Reference: official `inference.py`
(`load_media_file`), read in source only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageSequence, UnidentifiedImageError

from ltxrt.engines.errors import InputError
from ltxrt.engines.facts import VaeFacts
from ltxrt.runtime.image import picture, read_image
from ltxrt.runtime.preparation import Picture, Preparation, prepare

Array = NDArray[np.float32]

_PLACE = re.compile(r"(?P<path>.+)@(?P<frame>-?\d+)(?::(?P<strength>[^:@/\\]+))?")
_NOT_VIDEOS = ("tty",)  # what FFmpeg makes of any text file
_SEVERAL_PICTURES = ("MPO", "TIFF")  # a phone's photo with a preview, pages: no animation
# What a slip of the finger leaves behind a file's suffix.
_NO_PLACE = re.compile(r"@(?:[^@/\\.]*|[\d.:+-]*)$")


@dataclass(frozen=True)
class Condition:
    """A file, or pixels (3,H,W) or (3,n,H,W) float32 in −1..1, from `frame` on, with a strength of 0 to 1.

    `text` is what the user wrote, for messages.
    """

    path: Path | str | NDArray[np.float32]
    frame: int = 0
    strength: float = 1.0
    text: str = ""

    @property
    def label(self) -> str:
        """What messages call it."""
        if self.text:
            return self.text
        kind = "pixels" if isinstance(self.path, np.ndarray) else str(self.path)
        return f"--condition {kind}"


def parse(text: str) -> Condition:
    """`MEDIA[@FRAME[:STRENGTH]]`; a name may hold @ and : itself.

    Raises InputError for a frame that is no whole number of 0 or more, or a strength outside 0..1.
    """
    label = f"--condition {text}"
    match = _PLACE.fullmatch(text)
    there = _exists(text)
    if match is None or there:
        if not there and _NO_PLACE.search(text):
            raise InputError(f"{label}: must be MEDIA[@FRAME[:STRENGTH]], as in photo.png@96:0.8")
        return Condition(Path(text), text=label)
    frame, strength = int(match["frame"]), match["strength"]
    if frame < 0:
        raise InputError(f"{label}: frame {frame} must be 0 or more, counted from the video's start")
    return Condition(Path(match["path"]), frame, _strength(strength, label), label)


def _exists(text: str) -> bool:
    try:
        return Path(text).exists()
    except OSError:  # a name that no file can have
        return False


def _strength(text: str | None, label: str) -> float:
    try:
        value = 1.0 if text is None else float(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value <= 1.0:
        raise InputError(f"{label}: strength {text} must be a number between 0 and 1")
    return value


def count(condition: Condition, limit: int) -> int:
    """How many frames a file has, up to `limit`; 1 for an image. Raises InputError where it is unreadable."""
    path = _file(condition)
    if _is_image(path):
        read_image(path, condition.label)
        return 1
    found = sum(1 for _ in islice(_frames(path, condition.label), limit))
    return found


def trimmed(frames: int, start: int, num_frames: int, vae: VaeFacts) -> int:
    """How many of a file's frames are used from frame `start` of a video on: 8k+1 of them (official rule).

    What does not fit is cut off; a start beyond the end leaves the number as it is, to be refused.
    """
    time = vae.temporal_compression
    fitting = min(frames, num_frames - start)
    return (fitting - 1) // time * time + 1 if fitting > 0 else frames


def read(
    condition: Condition, height: int, width: int, num_frames: int, vae: VaeFacts, steps: Preparation
) -> Array:
    """A file's pixels (3,n,height,width) in −1..1: one frame of an image, those of a video that fit."""
    path = _file(condition)
    if _is_image(path):
        return prepare(read_image(path, condition.label), height, width, steps)[:, None]
    wanted = max(num_frames - condition.frame, 1)
    frames = [prepare(f, height, width, steps) for f in islice(_frames(path, condition.label), wanted)]
    kept = trimmed(len(frames), condition.frame, num_frames, vae)
    return np.stack(frames[:kept], axis=1)


def _file(condition: Condition) -> Path:
    if isinstance(condition.path, np.ndarray):
        raise InputError(f"{condition.label}: is no file")
    path = Path(condition.path)
    if not _exists(str(path)) or not path.is_file():
        raise InputError(f"{condition.label}: no such file")
    return path


def _is_image(path: Path) -> bool:
    """Whether Pillow knows the file and it is a single picture."""
    try:
        with Image.open(path) as image:
            return getattr(image, "n_frames", 1) == 1 or image.format in _SEVERAL_PICTURES
    except UnidentifiedImageError:
        return False
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError):
        return True  # it is one, and reading it says what is wrong


def _frames(path: Path, label: str) -> Iterator[Picture]:
    """The frames (H,W,3) of a video or an animation, one at a time. InputError where there are none."""
    found = 0
    for frame in _animation(path, label) if _is_animation(path) else _video(path, label):
        found += 1
        yield frame
    if not found:
        raise InputError(f"{label}: has no frames")


def _is_animation(path: Path) -> bool:
    try:
        with Image.open(path):
            return True
    except UnidentifiedImageError:
        return False


def _animation(path: Path, label: str) -> Iterator[Picture]:
    try:
        with Image.open(path) as image:
            for frame in ImageSequence.Iterator(image):
                yield picture(frame, label)
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise InputError(f"{label}: does not decode ({error}); the file is damaged or cut") from error


def _video(path: Path, label: str) -> Iterator[Picture]:
    try:
        with av.open(str(path.absolute())) as container:
            if not container.streams.video or container.format.name in _NOT_VIDEOS:
                raise InputError(
                    f"{label}: neither an image nor a video that can be read; it has no pictures"
                )
            frames: Any = container.decode(video=0)
            for frame in frames:
                yield np.rot90(frame.to_ndarray(format="rgb24"), getattr(frame, "rotation", 0) // 90)
    except (av.error.FFmpegError, IndexError) as error:
        raise InputError(
            f"{label}: neither an image nor a video that can be read ({_reason(error)}); "
            "give PNG, JPEG, WebP, GIF, MP4, WebM or MOV"
        ) from error


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or type(error).__name__
