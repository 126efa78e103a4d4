"""Preprocessing of a conditioning image or frame: crop, blur, codec and scaling, each a separate step.

Reference: official `load_image_to_tensor_with_resize_and_crop` and `crf_compressor.py`, which do the same to
every frame of a video; compared in `tests/runtime/ltxv/test_official_parity.py`. A little blur and codec
artefacts make the image look like a frame of the training videos; perfectly sharp ones tend to give still
videos.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from ltxrt.engines.errors import InputError, LtxrtError, setting
from ltxrt.runtime.media.resize import resize
from ltxrt.runtime.sampling.latents import NO_MARGINS, Margins

Array = NDArray[np.float32]
Picture = NDArray[np.uint8]

CRF = 29  # x264's quality; 0 is lossless, 51 the worst
KERNEL = np.exp(-0.5 * np.array([1.0, 0.0, 1.0]))  # Gaussian of sigma 1 at −1, 0, 1


@dataclass(frozen=True)
class Preparation:
    """The steps of preprocessing: `crop` to the video's aspect ratio (otherwise it is stretched), `blur`,
    `codec`; `scale` is bilinear without antialiasing, or bicubic with it. A source video is always scaled
    bicubically.
    """

    crop: bool
    blur: bool
    codec: bool
    scale: str


PREPARATIONS = {
    "official": Preparation(crop=True, blur=True, codec=True, scale="bilinear"),
    "plain": Preparation(crop=True, blur=False, codec=False, scale="bicubic"),
}


STEPS = ("crop", "blur", "codec")


def preparation_named(text: str) -> Preparation:
    """One of PREPARATIONS, or steps by name, as in "crop,codec", or "none"; scaled bilinearly.

    Raises InputError for other names.
    """
    if text in PREPARATIONS:
        return PREPARATIONS[text]
    steps = [] if text == "none" else text.split(",")
    if any(step not in STEPS for step in steps):
        raise InputError(
            f"{setting('preparation')} {text!r}: must be one of {', '.join(PREPARATIONS)}, none, "
            f"or steps of {','.join(STEPS)}"
        )
    return Preparation("crop" in steps, "blur" in steps, "codec" in steps, "bilinear")


@dataclass(frozen=True)
class Fit:
    """The sizes to fit a picture to: `asked`, the requested (height, width), and `size`, that of a pass.

    With two passes they differ, and so may their aspect ratios. A picture is cropped once, to the requested
    ratio, and stretched to the pass's size. `scaled_first`: it is scaled to the requested size before blur
    and codec, as the official pipeline does with a source video; conditions pass them in the file's own size.
    `around`: what is generated beyond the requested size and cropped in the end, which becomes grey here.
    """

    asked: tuple[int, int]
    size: tuple[int, int]
    scaled_first: bool = False
    around: Margins = NO_MARGINS


def prepare(picture: Picture, fit: Fit, steps: Preparation) -> Array:
    """A picture (h,w,3) uint8 as pixels (3,height,width) in −1..1, by the official order of steps."""
    if steps.crop:
        picture = centre_crop(picture, *fit.asked)
    if fit.scaled_first and steps.scale == "bilinear":
        picture = _scaled(picture, *fit.asked)
    if steps.blur:
        picture = in_bands(blur, picture)
    if steps.codec:
        picture = h264_round_trip(picture)
    return SCALES[steps.scale](picture, fit)


def padded(pixels: Array, around: Margins) -> Array:
    """Pixels (…,H,W) in −1..1 with grey around them."""
    if not any(around):
        return pixels
    none = [(0, 0)] * (pixels.ndim - 2)
    return np.pad(pixels, (*none, (around.top, around.bottom), (around.left, around.right)))


def centre_crop(picture: Picture, height: int, width: int) -> Picture:
    """The largest centred part (h',w',3) with the aspect ratio height:width."""
    old_height, old_width = picture.shape[:2]
    wanted = width / height
    if old_width / old_height > wanted:
        new_height, new_width = old_height, max(int(old_height * wanted), 1)
    else:
        new_height, new_width = max(int(old_width / wanted), 1), old_width
    top, left = (old_height - new_height) // 2, (old_width - new_width) // 2
    return picture[top : top + new_height, left : left + new_width]


def blur(picture: Picture) -> Picture:
    """A 3×3 Gaussian with sigma 1 and mirrored edges, truncated to 8 bits, the codec's input."""
    if min(picture.shape[:2]) < 2:
        return picture  # no neighbour to mirror
    line = (KERNEL / KERNEL.sum()).astype(np.float32)
    # as in torch: the result is truncated, so rounding matters
    scaled = picture.astype(np.float32) / np.float32(255)
    return np.stack([_blurred(scaled[..., channel], line) for channel in range(3)], axis=-1)


def _blurred(channel: Array, line: Array) -> Picture:
    """One channel (h,w) in 0..1, summed as torch's convolution sums: row by row, each product added unrounded
    (the product of two float32 is exact in float64)."""
    height, width = channel.shape
    wide = np.pad(channel, 1, mode="reflect")
    values = np.zeros_like(channel)
    for row, column in np.ndindex(3, 3):
        weight = np.float64(line[row] * line[column])
        part = wide[row : row + height, column : column + width]
        values = (weight * part + values.astype(np.float64)).astype(np.float32)
    return (values * np.float32(255)).clip(0, 255).astype(np.uint8)


def in_bands(step: Callable[[Picture], Picture], picture: Picture, rows: int = 256) -> Picture:
    """Apply a step that reads one row above and below to `rows` at a time: the same result in less memory.

    A blur takes about fifty bytes per pixel meanwhile, which is a gigabyte for a photo.
    """
    height, done = len(picture), np.empty_like(picture)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        first = max(top - 1, 0)
        done[top:bottom] = step(picture[first : bottom + 1])[top - first : bottom - first]
    return done


def h264_round_trip(picture: Picture, crf: int = CRF) -> Picture:
    """The picture (h,w,3) after one frame of H.264, without its last row or column if their number is odd."""
    even = np.ascontiguousarray(picture[: picture.shape[0] // 2 * 2, : picture.shape[1] // 2 * 2])
    if even.size == 0:
        return picture  # H.264 needs at least two rows and columns
    memory = io.BytesIO()
    try:
        with av.open(memory, "w", format="mp4") as container:
            options = {"crf": str(crf), "preset": "veryfast"}
            stream: Any = container.add_stream("libx264", rate=1, options=options)
            stream.height, stream.width = even.shape[:2]
            stream.pix_fmt = "yuv420p"
            stream.codec_context.thread_count = 1  # the result depends on it
            frame = av.VideoFrame.from_ndarray(even, format="rgb24").reformat(format="yuv420p")
            container.mux(stream.encode(frame))
            container.mux(stream.encode())
        memory.seek(0)
        with av.open(memory, "r") as coded:
            frame = next(coded.decode(video=0))
            return np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
    except av.error.FFmpegError as error:
        raise LtxrtError(
            f"this PyAV cannot encode an image with libx264 ({error}); reinstall the package av, or give "
            f"{setting('preparation')} plain"
        ) from error


def _bilinear(picture: Picture, fit: Fit) -> Array:
    """The margins are added at the picture's own size, as in the official pipeline: a large picture gets too
    narrow ones, and is stretched by as much."""
    return resize(padded(_pixels(picture), fit.around), *fit.size)


def _bicubic(picture: Picture, fit: Fit) -> Array:
    """The picture takes the part of the pass's size that the requested one takes of what is generated."""
    (height, width), around = fit.size, fit.around
    whole = (fit.asked[0] + around.top + around.bottom, fit.asked[1] + around.left + around.right)
    top, left = round(height * around.top / whole[0]), round(width * around.left / whole[1])
    inner = round(height * fit.asked[0] / whole[0]), round(width * fit.asked[1] / whole[1])
    margins = Margins(top, height - top - inner[0], left, width - left - inner[1])
    return padded(_pixels(_scaled(picture, *inner)), margins)


def _scaled(picture: Picture, height: int, width: int) -> Picture:
    from PIL import Image

    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC))


def _pixels(picture: Picture) -> Array:
    """(h,w,3) in 0..255 to (3,h,w) in −1..1."""
    scaled = picture.astype(np.float32) / np.float32(127.5) - np.float32(1)
    return np.ascontiguousarray(scaled.transpose(2, 0, 1))


SCALES: dict[str, Callable[[Picture, Fit], Array]] = {"bilinear": _bilinear, "bicubic": _bicubic}
