"""Formats of single images: an animated GIF, and a folder of PNG files."""

from __future__ import annotations

import json
from fractions import Fraction
from itertools import pairwise
from typing import Any

import av
from PIL import Image

from ltxrt.runtime.media.formats.sink import Frame, Target, deep


class Gif:
    """A GIF, with times in hundredths of a second and a palette of 256 colours per frame."""

    def __init__(self, target: Target) -> None:
        self.path, self.rate = target.path, target.rate
        self.comment = json.dumps(dict(target.metadata), ensure_ascii=True)
        self.images: list[Image.Image] = []

    def write(self, frame: Frame) -> None:
        self.images.append(Image.fromarray(frame).quantize(256, dither=Image.Dither.FLOYDSTEINBERG))

    def finish(self) -> None:
        # Durations are whole hundredths: the rounding error is carried over, so that the total is right.
        edges = [round(100 * i / self.rate) for i in range(len(self.images) + 1)]
        durations = [10 * (b - a) for a, b in pairwise(edges)]
        first, *rest = self.images
        first.save(
            self.path,
            "GIF",
            save_all=True,
            append_images=rest,
            duration=durations,
            loop=0,
            comment=self.comment,
        )

    def close(self) -> None:
        """Nothing is held open."""


class Folder:
    """PNG frames 00000.png … of 8 or 16 bits a channel, and metadata.json."""

    def __init__(self, target: Target) -> None:
        self.path, self.count = target.path, 0
        self.deep = target.encoding.bit_depth > 8
        document = {"frame_rate": str(target.rate), **target.metadata}
        (self.path / "metadata.json").write_text(json.dumps(document, indent=1), encoding="utf-8")

    def write(self, frame: Frame) -> None:
        path = self.path / f"{self.count:05d}.png"
        if self.deep:
            path.write_bytes(png16(deep(frame)))
        else:
            Image.fromarray(frame).save(path)
        self.count += 1

    def finish(self) -> None:
        """Each frame is complete as it is written."""

    def close(self) -> None:
        """Nothing is held open."""


def png16(frame: Frame) -> bytes:
    """A frame (H,W,3) uint16 as a PNG file, by FFmpeg's encoder: Pillow has no colour of 16 bits."""
    context: Any = av.CodecContext.create("png", "w")
    context.height, context.width = frame.shape[:2]
    context.pix_fmt, context.time_base = "rgb48be", Fraction(1, 25)
    picture = av.VideoFrame.from_ndarray(frame, format="rgb48le").reformat(format="rgb48be")
    return b"".join(bytes(packet) for packet in (*context.encode(picture), *context.encode(None)))
