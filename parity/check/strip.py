"""A picture of two videos one above the other: frames of each, and how they differ, with labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ltxrt.engines.storage.files import atomic_write

LABEL = 20  # pixels above each row, at least; a wide picture is shown smaller than it is
BACKGROUND, TEXT = (29, 33, 38), (231, 234, 238)
LARGEST_GAIN = 128


def save(
    theirs: NDArray[np.uint8], ours: NDArray[np.uint8], names: tuple[str, str], path: Path, count: int = 6
) -> None:
    """Write `count` frames of two videos (F,H,W,3), evenly spaced in time, as rows of one PNG.

    The third row is their difference around grey, magnified by the power of two that its label names.
    """
    chosen = np.linspace(0, len(theirs) - 1, min(count, len(theirs))).round().astype(int)
    difference, gain = magnified(theirs[chosen], ours[chosen])
    label = f"difference × {gain}" if gain else "no difference"
    at = ", ".join(str(number + 1) for number in chosen)
    rows = (
        (f"{names[0]}, frames {at} of {len(theirs)}", theirs[chosen]),
        (names[1], ours[chosen]),
        (label, difference),
    )
    pictures = [_labelled(text, np.concatenate(list(frames), axis=1)) for text, frames in rows]
    with atomic_write(path) as temporary:
        Image.fromarray(np.concatenate(pictures)).save(temporary, "PNG")


def magnified(theirs: NDArray[np.uint8], ours: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], int]:
    """(ours − theirs) times a power of two as uint8 around 128, and that factor: 0 where they are equal.

    It is the largest up to LARGEST_GAIN with which no difference leaves the range.
    """
    difference = ours.astype(np.int32) - theirs.astype(np.int32)
    largest = int(np.abs(difference).max(initial=0))
    gain = LARGEST_GAIN if largest else 0
    while gain > 1 and gain * largest > 127:
        gain //= 2
    return np.clip(128 + gain * difference, 0, 255).astype(np.uint8), gain


def _labelled(text: str, row: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height = max(LABEL, row.shape[1] // 56)
    bar = Image.new("RGB", (row.shape[1], height), BACKGROUND)
    ImageDraw.Draw(bar).text((height // 5, height // 8), text, TEXT, ImageFont.load_default(0.6 * height))
    return np.concatenate([np.asarray(bar), row])
