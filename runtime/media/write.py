"""Frames to a file, streamed and atomic: MP4, WebM, GIF or a folder of PNG. PyAV and Pillow.

PyAV includes FFmpeg's libraries, so a deployment machine needs no system package.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import stat
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, cast

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace
from numpy.typing import NDArray
from PIL import Image

from ltxrt.engines.errors import InputError, LtxrtError, setting
from ltxrt.engines.parsing.text import quoted
from ltxrt.engines.storage.files import atomic_write, temporary_folder_for, temporary_for
from ltxrt.runtime.media.readers import check_regular, damaged, open_video

Frame = NDArray[np.uint8]  # (H, W, 3)


@dataclass(frozen=True)
class Format:
    """How a video with a certain suffix is encoded."""

    codec: str
    pix_fmt: str
    options: Mapping[str, str]
    container: Mapping[str, str]


FORMATS = {
    # x264's macroblock tree reads uninitialised memory: with it, equal frames give different files.
    ".mp4": Format(
        "libx264",
        "yuv420p",
        {"crf": "18", "preset": "medium", "mbtree": "0"},
        {"movflags": "+faststart+use_metadata_tags"},
    ),
    ".webm": Format("libvpx-vp9", "yuv420p", {"crf": "24", "b": "0", "row-mt": "1", "cpu-used": "2"}, {}),
}
SUFFIXES = (*FORMATS, ".gif")
THREADS = 4  # fixed, because x264's output depends on it: the same file on any number of cores
_GIF = ("gif",)  # read by FFmpeg in `read_video`, whose frames have times
ALLOWED = f"{', '.join(SUFFIXES)}, or a name without suffix for a folder of PNG frames"
# What counts as a format's suffix, including the two known ones that begin with a digit. Other text behind a
# dot, as in fog-1.5 or take.2-final, is part of the name.
_SUFFIX = re.compile(r"\.([a-z][a-z0-9]*|3gp|3g2)", re.IGNORECASE)


def to_uint8(pixels: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Pixels (3, F, H, W) in −1..1, clipped, to frames (F, H, W, 3), rounded to the nearest value.

    The official pipeline truncates instead, which darkens by half a level.
    """
    scaled = (pixels * np.float32(0.5) + np.float32(0.5)).clip(0, 1) * np.float32(255)
    return np.ascontiguousarray(np.rint(scaled).astype(np.uint8).transpose(1, 2, 3, 0))


def save_strip(frames: NDArray[np.uint8], path: Path, count: int = 8) -> None:
    """Write `count` frames of (F, H, W, 3), evenly spaced in time, side by side as one PNG."""
    chosen = np.linspace(0, len(frames) - 1, min(count, len(frames))).round().astype(int)
    with atomic_write(path) as temporary:
        Image.fromarray(np.concatenate(list(frames[chosen]), axis=1)).save(temporary, "PNG")


def check_output(path: Path) -> None:
    """Raise InputError for an output that cannot be written; called before the work that would be lost."""
    try:
        _check_place(path)
        _check_replaceable(path)
        probe = _temporary(path)  # with this name, to detect one that is too long
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        parent = path.absolute().parent
        raise InputError(
            f"{setting('output')} {path}: cannot write to {parent} ({error.strerror})"
        ) from error


def _check_place(path: Path) -> None:
    suffix = suffix_of(path)
    if suffix not in (*SUFFIXES, ""):
        raise InputError(f"{setting('output')} {path}: the suffix must be {ALLOWED}")
    if path.name in ("", "..") or "\0" in path.name:
        raise InputError(
            f"{setting('output')} {path}: is not a file name; give a path for a file, or for a new folder"
        )
    parent = path.absolute().parent
    if not parent.is_dir():
        raise InputError(f"{setting('output')} {path}: the folder {parent} does not exist; make it first")
    if suffix == "" and path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(
            f"{setting('output')} {path}: exists; give a new name or an empty folder for the PNG frames"
        )
    if suffix != "" and path.is_dir():
        raise InputError(f"{setting('output')} {path}: is a folder; give a file name")
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise InputError(
            f"{setting('output')} {path}: is a device or a pipe; give the name of a regular file"
        )


def _check_replaceable(path: Path) -> None:
    """Raise InputError if the finished video, under its temporary name, could not be renamed to `path`."""
    if suffix_of(path) == "" and path.is_symlink():
        raise InputError(
            f"{setting('output')} {path}: is a link; give the folder it points to, {path.readlink()}"
        )
    if path.is_mount():
        raise InputError(f"{setting('output')} {path}: is where a disk is mounted; give a new name in it")
    parent = path.absolute().parent.stat()
    there = path.exists() or path.is_symlink()
    owners = (0, parent.st_uid, path.lstat().st_uid) if there else (os.geteuid(),)
    if parent.st_mode & stat.S_ISVTX and os.geteuid() not in owners:
        raise InputError(
            f"{setting('output')} {path}: belongs to another user, who alone may replace it; give a new name"
        )


def check_not_read(path: Path, files: Iterable[Path | str]) -> None:
    """Raise InputError if the output would replace one of the video's input files."""
    for file in files:
        try:
            same = path.exists() and path.samefile(file)
        except (OSError, ValueError):  # a missing input is reported where it is read
            continue
        if same:
            raise InputError(
                f"{setting('output')} {path}: the video is made from this file; give another name"
            )


def suffix_of(path: Path) -> str:
    """The suffix that names a format, in lower case; "" for none, which means a folder of PNG frames."""
    return path.suffix.lower() if _SUFFIX.fullmatch(path.suffix) else ""


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.stem}.{secrets.token_hex(4)}{path.suffix}")


class _Sink(Protocol):
    def write(self, frame: Frame) -> None: ...

    def finish(self) -> None:
        """Complete the file after the last frame."""

    def close(self) -> None:
        """Close the file, complete or not."""


class VideoWriter:
    """Writes frames one at a time under a temporary name; the complete video is renamed to its own.

    A context manager. After an exception, interruptions included, no file is left.
    Raises InputError for an impossible output or frame rate, a frame of another size, and no frames.
    """

    def __init__(
        self, path: Path | str, height: int, width: int, frame_rate: float, metadata: Mapping[str, str]
    ) -> None:
        self.path = Path(path)
        check_output(self.path)
        self.temporary = _temporary(self.path)
        self.size = (height, width)
        self.rate = as_fraction(frame_rate)
        self.metadata = dict(metadata)
        self.count = 0
        self._held = contextlib.ExitStack()

    def __enter__(self) -> Self:
        try:
            claim = temporary_for if suffix_of(self.path) else temporary_folder_for
            self.temporary = self._held.enter_context(claim(self.path))
            self._sink = self._open()
        except BaseException:
            self._discard()
            raise
        return self

    def write(self, frame: Frame) -> None:
        """Add one frame (height, width, 3) uint8."""
        if frame.shape != (*self.size, 3) or frame.dtype != np.uint8:
            raise InputError(f"frame {frame.dtype} {frame.shape}: must be uint8 {(*self.size, 3)}")
        self._sink.write(np.ascontiguousarray(frame))
        self.count += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with contextlib.closing(self._sink):
                if kind is None:
                    self._finish()
            if kind is None:
                self._publish()
        finally:
            self._discard()

    def _finish(self) -> None:
        if self.count == 0:
            raise InputError(
                f"{setting('output')} {self.path}: no frames were written; a video needs at least one"
            )
        self._sink.finish()

    def _open(self) -> _Sink:
        suffix = suffix_of(self.path)
        if suffix == ".gif":
            return _Gif(self.temporary, self.rate, self.metadata)
        if suffix in FORMATS:
            return _Encoded(self.temporary, FORMATS[suffix], self)
        return _Folder(self.temporary, self.rate, self.metadata)

    def _publish(self) -> None:
        if suffix_of(self.path) == "" and self.path.is_dir():
            self.path.rmdir()  # empty, as check_output has verified
        self.temporary.replace(self.path)

    def _discard(self) -> None:
        self._held.close()


class _Encoded:
    """A video codec in a container."""

    def __init__(self, path: Path, form: Format, writer: VideoWriter) -> None:
        try:
            self.container: Any = av.open(_file(path), "w", options={"fflags": "+bitexact", **form.container})
            options = dict(form.options)
            self.stream = cast(Any, self.container.add_stream(form.codec, rate=writer.rate, options=options))
        except (av.error.FFmpegError, ValueError) as error:
            raise LtxrtError(
                f"this PyAV cannot encode {path.suffix} with {form.codec} ({error}); reinstall the package av"
            ) from error
        self.container.metadata.update(writer.metadata)
        self.stream.height, self.stream.width = writer.size
        self.stream.pix_fmt = form.pix_fmt
        # Kept, because the container replaces the stream's time base by its own (1/1000 s in WebM) with the
        # first packet, which comes after the encoder's look-ahead of 25 frames or more.
        self.time_base = self.stream.time_base = 1 / writer.rate
        context: Any = self.stream.codec_context
        context.thread_count = THREADS
        context.flags |= av.codec.context.Flags.bitexact
        context.color_range, context.colorspace = 1, 1  # limited range, BT.709
        context.color_primaries, context.color_trc = 1, 1
        self.count = 0

    def write(self, frame: Frame) -> None:
        picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
        picture = picture.reformat(
            format=self.stream.pix_fmt, dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
        )
        picture.pts, picture.time_base = self.count, self.time_base
        self.count += 1
        self.container.mux(self.stream.encode(picture))

    def finish(self) -> None:
        self.container.mux(self.stream.encode())
        self.container.close()

    def close(self) -> None:
        with contextlib.suppress(av.error.FFmpegError):  # of a file that is discarded
            self.container.close()


class _Gif:
    """A GIF, with times in hundredths of a second and a palette of 256 colours per frame."""

    def __init__(self, path: Path, rate: Fraction, metadata: Mapping[str, str]) -> None:
        self.path, self.rate = path, rate
        self.comment = json.dumps(dict(metadata), ensure_ascii=True)
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


class _Folder:
    """PNG frames 00000.png … and metadata.json."""

    def __init__(self, path: Path, rate: Fraction, metadata: Mapping[str, str]) -> None:
        self.path, self.count = path, 0
        document = {"frame_rate": str(rate), **metadata}
        (path / "metadata.json").write_text(json.dumps(document, indent=1), encoding="utf-8")

    def write(self, frame: Frame) -> None:
        Image.fromarray(frame).save(self.path / f"{self.count:05d}.png")
        self.count += 1

    def finish(self) -> None:
        """Each frame is complete as it is written."""

    def close(self) -> None:
        """Nothing is held open."""


def as_fraction(frame_rate: float) -> Fraction:
    """The exact rate that a decimal means: 23.976 and 29.97 are the NTSC rates 24000/1001 and 30000/1001."""
    if not 0 < frame_rate <= sys.float_info.max:  # NaN compares false; an int may be too large to convert
        raise InputError(f"frame rate {quoted(frame_rate)}: must be a number of frames per second above 0")
    whole = round(frame_rate * 1.001)
    ntsc = Fraction(whole * 1000, 1001)
    if abs(float(ntsc) - frame_rate) < 2e-3 and frame_rate != int(frame_rate):
        return ntsc
    return Fraction(frame_rate).limit_denominator(100_000)


def read_video(path: Path | str) -> tuple[NDArray[np.uint8], Fraction]:
    """All frames (F, H, W, 3) and the frame rate. Raises InputError if the file cannot be decoded."""
    label = str(path)
    with open_video(Path(path), label, _GIF) as (container, stream), damaged(label):
        frames = [f.to_ndarray(format="rgb24") for f in container.decode(stream)]
        rate = stream.average_rate or Fraction(25)
    if not frames:
        raise InputError(f"{path}: has no frames")
    if len({frame.shape for frame in frames}) > 1:
        raise InputError(f"{path}: has frames of several sizes; they do not fit into one array")
    return np.stack(frames), Fraction(rate)


def read_metadata(path: Path | str) -> dict[str, str]:
    """A written video's metadata: prompt, seed, bundle and parameters, and what its container adds.

    Keys are in lower case, which WebM does not preserve. Raises InputError if there are no metadata.
    """
    path = Path(path)
    try:
        return {str(key).lower(): str(value) for key, value in _metadata(path).items()}
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise InputError(f"{path}: has no readable metadata ({error})") from error


def _metadata(path: Path) -> Any:
    if path.is_dir():
        check_regular(path / "metadata.json", "metadata.json")
        return json.loads((path / "metadata.json").read_text(encoding="utf-8"))
    if path.suffix.lower() == ".gif":
        check_regular(path, str(path))
        with damaged(str(path)), Image.open(path, formats=["GIF"]) as image:
            return json.loads(image.info.get("comment", b"{}"))
    with open_video(path, str(path)) as (container, _):
        return dict(container.metadata)


def _file(path: Path) -> str:
    """The name for FFmpeg, which takes the part before a colon in a relative name for a protocol."""
    return str(path.absolute())
