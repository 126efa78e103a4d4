"""Images as (H,W,3) uint8: upright, without transparency, of 8 bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from ltxrt.engines.errors import InputError
from ltxrt.runtime.media.preprocess import Picture
from ltxrt.runtime.media.readers import damaged, open_image

_BAND = 256  # rows converted at a time: some modes take 32 bytes per pixel meanwhile
_UPRIGHT = {  # EXIF orientation → the transposition that undoes it
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
WIDE_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")  # one channel of more than 8 bits


def read_image(path: Path, label: str) -> Picture:
    """An image file as (H,W,3) uint8.

    The EXIF orientation is applied; transparency is composited over black; 16-bit grayscale is scaled from
    its full range; other modes are converted to RGB. Raises InputError, beginning with `label`, for a file
    that is missing, cannot be decoded, or has values of unknown range.
    """
    return picture(_open(path, label), label)


def picture(image: Image.Image, label: str) -> Picture:
    """A decoded image as `read_image` returns it."""
    width, height = image.size
    pixels = np.empty((height, width, 3), np.uint8)
    with damaged(label):
        for top in range(0, height, _BAND):
            band = image.crop((0, top, width, min(top + _BAND, height)))
            pixels[top : top + _BAND] = np.asarray(_rgb(band, label))
    return pixels


def from_pillow(image: Image.Image, label: str) -> Picture:
    """An image of Pillow as `read_image` returns a file with it."""
    with damaged(label):
        return picture(_upright(image), label)


def _open(path: Path, label: str) -> Image.Image:
    """The decoded image in its upright orientation."""
    image = open_image(path, label)
    if image is None:
        raise InputError(f"{label}: not an image in a supported format; give a PNG, JPEG or WebP")
    with damaged(label), image:
        return _upright(image)


def _upright(image: Image.Image) -> Image.Image:
    image.load()
    turn = _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    return image if turn is None else image.transpose(turn)


def _rgb(image: Image.Image, label: str) -> Image.Image:
    if image.mode in WIDE_MODES:
        return _from_wide(image, label).convert("RGB")
    if image.has_transparency_data:
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _from_wide(image: Image.Image, label: str) -> Image.Image:
    """Grayscale of 16 bits, or float in 0..1, to 8 bits; Pillow's own conversion clips at 255."""
    values = np.asarray(image).astype(np.float64)
    largest = 1 if image.mode == "F" else 65535
    if not ((values >= 0) & (values <= largest)).all():  # NaN is refused too
        kind = "float" if image.mode == "F" else "integer"
        raise InputError(f"{label}: {kind} pixels must lie in 0..{largest}; save it with 8 or 16 bits")
    return Image.fromarray((values / largest * 255).round().astype(np.uint8))
