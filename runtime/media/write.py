"""Frames to a file, streamed and atomic; the formats themselves are in `formats`."""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from ltxrt.engines.errors import InputError, setting
from ltxrt.engines.storage import system
from ltxrt.engines.storage.files import atomic_write, temporary_folder_for, temporary_for, temporary_name
from ltxrt.runtime.media.formats.encoding import Encoding, as_fraction, suffix_of
from ltxrt.runtime.media.formats.sink import Frame, Target, opened

__all__ = [
    "Encoding",
    "VideoWriter",
    "as_fraction",
    "check_not_read",
    "check_output",
    "save_strip",
    "to_uint8",
    "to_uint16",
]

_OF_FRAMES = re.compile(r"[0-9]{5,}\.png|metadata\.json")

Whole = TypeVar("Whole", np.uint8, np.uint16)


def to_uint8(pixels: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Pixels (3, F, H, W) in −1..1, clipped, to frames (F, H, W, 3), rounded to the nearest value.

    The official pipeline truncates instead, which darkens by half a level.
    """
    return _whole(pixels, np.uint8)


def to_uint16(pixels: NDArray[np.float32]) -> NDArray[np.uint16]:
    """As `to_uint8`, over the full range of 16 bits."""
    return _whole(pixels, np.uint16)


def _whole(pixels: NDArray[np.float32], kind: type[Whole]) -> NDArray[Whole]:
    scaled = (pixels * np.float32(0.5) + np.float32(0.5)).clip(0, 1) * np.float32(np.iinfo(kind).max)
    return np.ascontiguousarray(np.rint(scaled).astype(kind).transpose(1, 2, 3, 0))


def save_strip(frames: NDArray[np.uint8], path: Path, count: int = 8) -> None:
    """Write `count` frames of (F, H, W, 3), evenly spaced in time, side by side as one PNG."""
    from PIL import Image

    chosen = np.linspace(0, len(frames) - 1, min(count, len(frames))).round().astype(int)
    with atomic_write(path) as temporary:
        Image.fromarray(np.concatenate(list(frames[chosen]), axis=1)).save(temporary, "PNG")


def check_output(path: Path, encoding: Encoding = Encoding()) -> None:  # noqa: B008  # frozen
    """Raise InputError for an output that cannot be written; called before the work that would be lost."""
    encoding.resolved(path)
    try:
        _check_place(path)
        _check_replaceable(path)
        probe = temporary_name(path)  # with this name, to detect one that is too long
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        parent = path.absolute().parent
        raise InputError(
            f"{setting('output')} {path}: cannot write to {parent} ({error.strerror})"
        ) from error


def _check_place(path: Path) -> None:
    suffix = suffix_of(path)
    if path.name in ("", "..") or "\0" in path.name:
        raise InputError(
            f"{setting('output')} {path}: is not a file name; give a path for a file, or for a new folder"
        )
    parent = path.absolute().parent
    if not parent.is_dir():
        raise InputError(f"{setting('output')} {path}: the folder {parent} does not exist; make it first")
    if suffix == "" and path.exists() and not _replaceable_folder(path):
        raise InputError(
            f"{setting('output')} {path}: exists; give a new name or an empty folder for the PNG frames"
        )
    if suffix != "" and path.is_dir():
        raise InputError(f"{setting('output')} {path}: is a folder; give a file name")
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise InputError(
            f"{setting('output')} {path}: is a device or a pipe; give the name of a regular file"
        )


def _replaceable_folder(path: Path) -> bool:
    """Whether it is empty, or holds the frames of a video and nothing else."""
    names = [entry.name for entry in path.iterdir()] if path.is_dir() else [""]
    return not names or ("metadata.json" in names and all(map(_OF_FRAMES.fullmatch, names)))


def _check_replaceable(path: Path) -> None:
    """Raise InputError if the finished video, under its temporary name, could not be renamed to `path`."""
    if suffix_of(path) == "" and path.is_symlink():
        raise InputError(
            f"{setting('output')} {path}: is a link; give the folder it points to, {path.readlink()}"
        )
    if os.path.ismount(path):  # Python 3.11 has no Path.is_mount on Windows
        raise InputError(f"{setting('output')} {path}: is where a disk is mounted; give a new name in it")
    parent = path.absolute().parent.stat()
    there = path.exists() or path.is_symlink()
    user = system.user()
    owners = (0, parent.st_uid, path.lstat().st_uid) if there else (user,)
    if parent.st_mode & stat.S_ISVTX and user not in (*owners, None):
        raise InputError(
            f"{setting('output')} {path}: belongs to another user, who alone may replace it; give a new name"
        )


def check_not_read(path: Path, files: Iterable[Path | str], field: str = "output") -> None:
    """Raise InputError if what `field` names would replace one of the video's input files."""
    for file in files:
        try:
            same = path.exists() and path.samefile(file)
        except (OSError, ValueError):  # a missing input is reported where it is read
            continue
        if same:
            raise InputError(f"{setting(field)} {path}: the video is made from this file; give another name")


class VideoWriter:
    """Writes frames one at a time under a temporary name; the complete video is renamed to its own.

    A context manager. After an exception, interruptions included, no file is left.
    `metadata` may be empty; otherwise how the frames are encoded is added to it. Raises InputError for an
    impossible output, encoding or frame rate, a frame of another size or type, and no frames.
    """

    def __init__(
        self,
        path: Path | str,
        height: int,
        width: int,
        frame_rate: float,
        metadata: Mapping[str, str],
        encoding: Encoding = Encoding(),  # noqa: B008  # frozen
    ) -> None:
        self.path = Path(path)
        check_output(self.path, encoding)
        encoding.check_size(self.path, height, width)
        self.encoding = encoding.resolved(self.path)
        self.temporary = temporary_name(self.path)
        self.size = (height, width)
        self.rate = as_fraction(frame_rate)
        self.metadata = dict(metadata)
        if metadata:
            self.metadata["encoding"] = json.dumps(vars(self.encoding))
        self.count = 0
        self._held = contextlib.ExitStack()

    def __enter__(self) -> Self:
        try:
            claim = temporary_for if suffix_of(self.path) else temporary_folder_for
            self.temporary = self._held.enter_context(claim(self.path))
            target = Target(self.temporary, self.size, self.rate, self.metadata, self.encoding)
            self._sink = opened(target, suffix_of(self.path))
        except BaseException:
            self._discard()
            raise
        return self

    def write(self, frame: Frame) -> None:
        """Add one frame (height, width, 3) uint8; uint16 over its full range where the encoding has it."""
        types = ("uint8", "uint16") if self.encoding.bit_depth > 8 else ("uint8",)
        if frame.shape != (*self.size, 3) or frame.dtype.name not in types:
            allowed = f"{' or '.join(types)} {(*self.size, 3)}"
            raise InputError(f"frame {frame.dtype} {frame.shape}: must be {allowed}")
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

    def _publish(self) -> None:
        if not self.path.is_dir():
            self.temporary.replace(self.path)
            return
        with temporary_folder_for(self.path) as former:  # removed when the block ends
            former.rmdir()
            self.path.rename(former)
            try:
                self.temporary.replace(self.path)
            except BaseException:
                former.rename(self.path)
                raise

    def _discard(self) -> None:
        self._held.close()
