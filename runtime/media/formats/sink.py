"""What a format is given to write, and what it has to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ltxrt.runtime.media.formats.encoding import Encoding

Frame = NDArray[Any]  # (H, W, 3) uint8, or uint16 over its full range


@dataclass(frozen=True)
class Target:
    """A file to write, under its temporary name; `size` is (height, width), `encoding` resolved."""

    path: Path
    size: tuple[int, int]
    rate: Fraction
    metadata: Mapping[str, str]
    encoding: Encoding


class Sink(Protocol):
    """Takes frames of one size and type in order."""

    def write(self, frame: Frame) -> None: ...

    def finish(self) -> None:
        """Complete the file after the last frame."""

    def close(self) -> None:
        """Close the file, complete or not."""


def deep(frame: Frame) -> Frame:
    """The frame as uint16 over its full range."""
    return frame if frame.dtype == np.uint16 else frame.astype(np.uint16) * np.uint16(257)


def opened(target: Target, suffix: str) -> Sink:
    """The format of `suffix`, "" for a folder. Each is loaded when it is written, because that takes time."""
    if suffix in (".npy", ".npz"):
        from ltxrt.runtime.media.formats import arrays

        return arrays.Array(target) if suffix == ".npy" else arrays.Archive(target)
    if suffix in ("", ".png", ".gif"):
        from ltxrt.runtime.media.formats import images

        if suffix == ".gif":
            return images.Gif(target)
        return images.Picture(target) if suffix else images.Folder(target)
    from ltxrt.runtime.media.formats.codec import Encoded

    return Encoded(target)
