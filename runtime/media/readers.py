"""Which image and video files are opened, by which readers, and their maximum sizes.

Pillow and FFmpeg read far more than pictures: documents that need another program to render, playlists that
name other files. Here each gets a list of allowed formats, which it recognises by content. Sizes are checked
in the header, before pixels are decoded.
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

# Pillow's names; JPEG includes phones' photos with a preview (MPO). None of them starts a program.
IMAGES = ("PNG", "JPEG", "WEBP", "GIF", "AVIF", "TIFF", "BMP")
# FFmpeg's names: MP4, MOV, M4V and 3GP; WebM and MKV; AVI. None of them opens another file.
DEMUXERS = ("mov", "matroska", "avi")
READABLE = "PNG, JPEG, WebP, AVIF, TIFF, BMP, GIF, MP4, MOV, WebM, MKV or AVI"

# A generated video has a few megapixels; far larger inputs only take time and memory. An image may have the
# size of a phone's largest photos (50 megapixels), a frame 8K (8192×4320), all used frames together 265 of
# 4K.
PICTURE_PIXELS = 64_000_000
FRAME_PIXELS = 8192 * 4320
VIDEO_PIXELS = 265 * 3840 * 2160

# Photos in a video container, stored as tiles: the first tile would be taken for the photo.
_TILED = ("heic", "heix", "heim", "heis", "mif1", "avif", "avis")


def check_regular(path: Path, label: str) -> None:
    """Raise InputError unless it is a regular file with content. Never opens it: a pipe would block."""
    try:
        status = path.stat()
    except PermissionError as error:
        raise InputError(f"{label}: cannot be read ({error.strerror})") from error
    except (OSError, ValueError) as error:  # absent, or a name that is too long or has a zero byte
        raise InputError(f"{label}: no such file") from error
    if stat.S_ISDIR(status.st_mode):
        raise InputError(f"{label}: is a folder; give a file")
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{label}: is not a regular file; give a file, not a device or a pipe")
    if status.st_size == 0:
        raise InputError(f"{label}: is empty (0 bytes)")


def open_image(path: Path, label: str) -> Image.Image | None:
    """The image with its header read, of an allowed size; None if its format is not in IMAGES.

    Raises InputError for a file that is not regular, cannot be read, is damaged or too large.
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
    """The formats in IMAGES that this Pillow supports; AVIF since 11.3."""
    Image.init()
    return tuple(name for name in IMAGES if name in Image.OPEN)


def is_animation(image: Image.Image, label: str) -> bool:
    """Whether an image has several frames; a photo's preview and further pages of a TIFF do not count."""
    with damaged(label):
        return image.format not in ("MPO", "TIFF") and bool(getattr(image, "is_animated", False))


@contextmanager
def open_video(path: Path, label: str, more: tuple[str, ...] = ()) -> Iterator[tuple[Any, Any]]:
    """PyAV's container and the first video stream, of an allowed size.

    `more` are demuxers besides DEMUXERS. Raises InputError for a file that is not regular or not a video.
    """
    check_regular(path, label)
    options = {"format_whitelist": ",".join((*DEMUXERS, *more)), "protocol_whitelist": "file"}
    try:
        # Absolute, because FFmpeg takes the part before a colon in a relative name for a protocol.
        container = av.open(str(path.absolute()), container_options=options, metadata_errors="replace")
    except Exception as error:  # its parsers raise several types
        why = (
            "" if isinstance(error, av.error.ArgumentError) else reason(error)
        )  # a format of none of the demuxers
        raise InputError(_neither(label, why)) from error
    with container:
        if not container.streams.video:
            raise InputError(_neither(label, "it has no pictures"))
        if container.metadata.get("major_brand", "").strip() in _TILED:
            raise InputError(f"{label}: is a HEIF photo, which is not supported; save it as JPEG or PNG")
        stream: Any = container.streams.video[0]
        context = stream.codec_context
        if context is None:
            raise InputError(_neither(label, "its codec is unknown"))
        check_size((context.width, context.height), FRAME_PIXELS, label)
        context.options = {"max_pixels": str(FRAME_PIXELS)}  # for the frames' own headers
        yield container, stream


def check_size(size: tuple[int, int], limit: int, label: str) -> None:
    """Raise InputError for a (width, height) above `limit` pixels."""
    width, height = size
    if width * height > limit:
        raise InputError(
            f"{label}: has {width}x{height} pixels, more than {limit / 1e6:.0f} million; scale it down first"
        )


def check_total(frames: int, size: tuple[int, int], label: str) -> None:
    """Raise InputError if `frames` of (width, height) have more pixels than a video may have in total."""
    width, height = size
    if frames * width * height > VIDEO_PIXELS:
        raise InputError(
            f"{label}: its first {frames} frames of {width}x{height} pixels have together more than "
            f"{VIDEO_PIXELS / 1e6:.0f} million; scale it down first"
        )


@contextmanager
def damaged(label: str) -> Iterator[None]:
    """Turns whatever a decoder raises because of a file's content into an InputError.

    Parsers of damaged files raise what their arithmetic raises: struct.error, KeyError, OverflowError. Their
    warnings are suppressed; a size that Pillow warns of is refused by `check_size`.
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
        raise InputError(
            f"{label}: does not decode ({reason(error)}); the file is damaged or truncated"
        ) from error


def reason(error: Exception) -> str:
    """A decoder's error in a few words."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())[:200]


def _neither(label: str, why: str) -> str:
    return (
        f"{label}: neither an image nor a video that can be read{f' ({why})' if why else ''}; give {READABLE}"
    )
