"""Formats of images: an animated GIF, one PNG file, and a folder of PNG files."""

from __future__ import annotations

import io
import json
import struct
import zlib
from fractions import Fraction
from itertools import pairwise
from typing import Any

import av
from PIL import Image

from ltxrt.engines.errors import InputError, setting
from ltxrt.runtime.media.formats.sink import Frame, Target, deep

_AFTER_HEADER = 33  # bytes of a PNG file's signature and first chunk


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


class Picture:
    """One frame as a PNG file of 8 or 16 bits a channel, with the metadata as its texts."""

    def __init__(self, target: Target) -> None:
        self.target, self.frames = target, 0

    def write(self, frame: Frame) -> None:
        self.frames += 1
        if self.frames > 1:
            raise InputError(f"{setting('output')} {self.target.path.suffix}: is one picture; give one frame")
        data = png16(deep(frame)) if self.target.encoding.bit_depth > 8 else _png8(frame)
        texts = b"".join(_text(name, value) for name, value in self.target.metadata.items())
        self.target.path.write_bytes(data[:_AFTER_HEADER] + texts + data[_AFTER_HEADER:])

    def finish(self) -> None:
        """The frame is complete as it is written."""

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


def _png8(frame: Frame) -> bytes:
    memory = io.BytesIO()
    Image.fromarray(frame).save(memory, "PNG")
    return memory.getvalue()


def _text(name: str, value: str) -> bytes:
    """An iTXt chunk of a PNG file: an uncompressed text in UTF-8."""
    data = b"iTXt" + name.encode("latin-1") + b"\0" * 5 + value.encode()
    return struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))


def png16(frame: Frame) -> bytes:
    """A frame (H,W,3) uint16 as a PNG file, by FFmpeg's encoder: Pillow has no colour of 16 bits."""
    context: Any = av.CodecContext.create("png", "w")
    context.height, context.width = frame.shape[:2]
    context.pix_fmt, context.time_base = "rgb48be", Fraction(1, 25)
    picture = av.VideoFrame.from_ndarray(frame, format="rgb48le").reformat(format="rgb48be")
    return b"".join(bytes(packet) for packet in (*context.encode(picture), *context.encode(None)))
