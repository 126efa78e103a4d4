"""Which image and video files are opened, by which readers, and how large they may be.

Pillow and FFmpeg read far more than pictures: documents that a further program has to draw, playlists that
name other files. Here each is given the list of what it may take a file for, by its content. Sizes are
refused by what the header says, before pixels are decoded.
"""

from __future__ import annotations

import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import av
from PIL import Image, UnidentifiedImageError

from ltxrt.engines.errors import InputError, LtxrtError

# Pillow's names; JPEG stands for a phone's photo with a preview (MPO) too. None of them runs a program.
IMAGES = ("PNG", "JPEG", "WEBP", "GIF", "AVIF", "TIFF", "BMP")
# FFmpeg's names: MP4, MOV, M4V and 3GP; WebM and MKV; AVI. None of them opens another file.
DEMUXERS = ("mov", "matroska", "avi")
READABLE = "PNG, JPEG, WebP, AVIF, TIFF, BMP, GIF, MP4, MOV, WebM, MKV or AVI"

# A video has a few megapixels; what is far larger only takes time and memory. A picture may be the largest
# that phones take (50 megapixels), a frame 8K (8192×4320), all used frames of a video together 265 of 4K.
PICTURE_PIXELS = 64_000_000
FRAME_PIXELS = 8192 * 4320
VIDEO_PIXELS = 265 * 3840 * 2160

# Photos in a video's container, cut into tiles: the first of them would pass for the photo.
_TILED = ("heic", "heix", "heim", "heis", "mif1", "avif", "avis")


def check_regular(path: Path, label: str) -> None:
    """Refuse what is no regular file with content. Never opens it, which would wait for a pipe's writer."""
    try:
        status = path.stat()
    except PermissionError as error:
        raise InputError(f"{label}: cannot be read ({error.strerror})") from error
    except (OSError, ValueError) as error:  # absent, too long a name, a zero byte in it
        raise InputError(f"{label}: no such file") from error
    if stat.S_ISDIR(status.st_mode):
        raise InputError(f"{label}: is a folder; give a file")
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{label}: is not a regular file; give a file, no device or pipe")
    if status.st_size == 0:
        raise InputError(f"{label}: is empty (0 bytes)")


def open_image(path: Path, label: str) -> Image.Image | None:
    """The image with its header read, of an allowed size; None for what is none of IMAGES.

    Raises InputError for what is no regular file, cannot be read, is damaged or too large.
    """
    check_regular(path, label)
    with damaged(label):
        try:
            image = Image.open(path, formats=_formats())
        except UnidentifiedImageError:
            return None
    try:
        moves = is_animation(image, label)
        check_size(image.size, FRAME_PIXELS if moves else PICTURE_PIXELS, label)
    except BaseException:
        image.close()
        raise
    return image


@cache
def _formats() -> tuple[str, ...]:
    """Those of IMAGES that this Pillow has; AVIF came with 11.3."""
    Image.init()
    return tuple(name for name in IMAGES if name in Image.OPEN)


def is_animation(image: Image.Image, label: str) -> bool:
    """Whether an image has several frames; a photo's preview and a TIFF's further pages are none."""
    with damaged(label):
        return image.format not in ("MPO", "TIFF") and bool(getattr(image, "is_animated", False))


@contextmanager
def open_video(path: Path, label: str, more: tuple[str, ...] = ()) -> Iterator[tuple[Any, Any]]:
    """PyAV's container and the first video stream, of an allowed size.

    `more` are demuxers beside DEMUXERS. Raises InputError for what is no regular file and no video.
    """
    check_regular(path, label)
    options = {"format_whitelist": ",".join((*DEMUXERS, *more)), "protocol_whitelist": "file"}
    try:
        # Absolute, as FFmpeg takes what stands before a colon in a relative name for a protocol.
        container = av.open(str(path.absolute()), container_options=options, metadata_errors="replace")
    except Exception as error:  # whatever its parsers make of the content
        why = (
            "" if isinstance(error, av.error.ArgumentError) else reason(error)
        )  # none of the demuxers' files
        raise InputError(_neither(label, why)) from error
    with container:
        if not container.streams.video:
            raise InputError(_neither(label, "it has no pictures"))
        if container.metadata.get("major_brand", "").strip() in _TILED:
            raise InputError(f"{label}: is a HEIF photo, which is not read; save it as JPEG or PNG")
        stream: Any = container.streams.video[0]
        context = stream.codec_context
        if context is None:
            raise InputError(_neither(label, "its codec is unknown"))
        check_size((context.width, context.height), FRAME_PIXELS, label)
        context.options = {"max_pixels": str(FRAME_PIXELS)}  # for what the frames' own headers say
        yield container, stream


def check_size(size: tuple[int, int], limit: int, label: str) -> None:
    """Refuse a (width, height) above `limit` pixels."""
    width, height = size
    if width * height > limit:
        raise InputError(
            f"{label}: has {width}x{height} pixels, more than {limit / 1e6:.0f} million; scale it down first"
        )


def check_total(frames: int, size: tuple[int, int], label: str) -> None:
    """Refuse more `frames` of (width, height) than a video may have pixels in all."""
    width, height = size
    if frames * width * height > VIDEO_PIXELS:
        raise InputError(
            f"{label}: its first {frames} frames of {width}x{height} pixels are together more than "
            f"{VIDEO_PIXELS / 1e6:.0f} million; scale it down first"
        )


@contextmanager
def damaged(label: str) -> Iterator[None]:
    """Around a decoder's work: whatever it raises over a file's content becomes an InputError.

    Parsers of damaged files raise what their arithmetic raises: struct.error, KeyError, OverflowError. Their
    warnings are left out; a size that Pillow warns of is refused by `check_size`.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except LtxrtError:
        raise
    except Image.DecompressionBombError as error:
        limit = f"{PICTURE_PIXELS / 1e6:.0f} million"
        raise InputError(f"{label}: has more than {limit} pixels; scale it down first") from error
    except Exception as error:
        raise InputError(f"{label}: does not decode ({reason(error)}); the file is damaged or cut") from error


def reason(error: Exception) -> str:
    """A decoder's error in a few words."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())[:200]


def _neither(label: str, why: str) -> str:
    return (
        f"{label}: neither an image nor a video that can be read{f' ({why})' if why else ''}; give {READABLE}"
    )
