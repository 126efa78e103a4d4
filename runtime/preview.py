"""Previews: latents as small colour pictures, by the bundle's map, without the decoder.

    for event in events: pictures = preview.colours(bundle, event.clean)

A picture has a pixel for each latent cell and there is one for each latent frame; `Strip` keeps a file of
them, enlarged, up to date while a video is sampled.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ltxrt.engines.bundle import Bundle
from ltxrt.engines.errors import BundleError, InputError, setting
from ltxrt.engines.families.preview import Preview
from ltxrt.engines.storage.files import atomic_write

Pictures = NDArray[np.uint8]  # (f, h, w, 3)

SUFFIXES = (".webp", ".png")
_LONGEST = 384  # pixels of an animation's longer side
_COLUMNS, _THUMB = 8, 160  # a strip's pictures in a row, and pixels of the longer side of each
_GAP = 2  # pixels between two of them
_SOFTWARE, _MARK = 305, "ltxrt preview"  # the tag of EXIF that names what wrote a file, and its value
_SECONDS = 1.0  # between two writings of a file, but for the last


def colours(bundle: Bundle, latents: NDArray[np.float32]) -> Pictures:
    """The pictures (f,h,w,3) of normalised latents (1,C,f,h,w).

    Raises InputError for a bundle without a map, or latents of another number of channels.
    """
    return mapped(of(bundle), latents)


def of(bundle: Bundle) -> Preview:
    """The bundle's map. Raises BundleError for a bundle that was exported before there were any."""
    if bundle.preview is None:
        raise BundleError(
            f"{setting('preview')}: {bundle.root} has no colours for a preview; export its decoder again "
            "with ltx-export onnx"
        )
    return bundle.preview


def mapped(preview: Preview, latents: NDArray[np.float32]) -> Pictures:
    """The pictures (f,h,w,3) of normalised latents (1,C,f,h,w) by this map."""
    weights = np.asarray(preview.weights, np.float32)
    if latents.ndim != 5 or latents.shape[:2] != (1, weights.shape[1]):
        raise InputError(f"latents {latents.shape}: a preview is of (1, {weights.shape[1]}, f, h, w)")
    cells = np.nan_to_num(latents[0].transpose(1, 2, 3, 0), posinf=0, neginf=0)
    values = cells @ weights.T + np.asarray(preview.offset, np.float32)
    return (values.clip(0, 1) * 255).round().astype(np.uint8)


def check_path(path: Path, overwrite: bool = False) -> None:
    """Raise InputError for a path that no preview can be written to.

    An existing file is replaced if it is an earlier preview; another one only with `overwrite`.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{setting('preview')} {path}: the suffix must be {' or '.join(SUFFIXES)}")
    if not path.parent.is_dir():
        raise InputError(f"{setting('preview')} {path}: its folder is not there; make it first")
    if path.exists() and not path.is_file():
        raise InputError(f"{setting('preview')} {path}: is not a regular file; give another name")
    if path.exists() and not overwrite and not _is_preview(path):
        raise InputError(
            f"{setting('preview')} {path}: exists and is no preview; give another name, or give "
            f"{setting('overwrite')}"
        )
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}."):
            pass
    except OSError as error:
        raise InputError(
            f"{setting('preview')} {path}: cannot write to {path.absolute().parent} ({error.strerror})"
        ) from error


def _is_preview(path: Path) -> bool:
    try:
        with Image.open(path, formats=["PNG", "WEBP"]) as image:
            return image.getexif().get(_SOFTWARE) == _MARK
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False


def write(path: Path, pictures: Pictures, frame_rate: float) -> None:
    """An animation (.webp) of pictures at `frame_rate`, or all of them side by side (.png); atomic."""
    mark = Image.Exif()
    mark[_SOFTWARE] = _MARK
    with atomic_write(path) as temporary:
        if path.suffix.lower() == ".png":
            strip(pictures).save(temporary, "PNG", exif=mark)
            return
        first, *others = [enlarged(picture, _LONGEST) for picture in pictures]
        each = max(1, round(1000 / frame_rate))
        first.save(
            temporary,
            "WEBP",
            save_all=True,
            append_images=others,
            duration=each,
            loop=0,
            quality=80,
            method=0,
            exif=mark,
        )


def strip(pictures: Pictures) -> Image.Image:
    """The pictures in rows, in order of time."""
    small = [enlarged(picture, _THUMB) for picture in pictures]
    width, height = (side + _GAP for side in small[0].size)
    columns = min(_COLUMNS, len(small))
    rows = -(-len(small) // columns)
    whole = Image.new("RGB", (columns * width - _GAP, rows * height - _GAP))
    for number, picture in enumerate(small):
        whole.paste(picture, (number % columns * width, number // columns * height))
    return whole


def enlarged(picture: NDArray[np.uint8], longest: int) -> Image.Image:
    """A picture (h,w,3) whose longer side has about `longest` pixels."""
    image = Image.fromarray(picture)
    factor = max(1, longest // max(image.size))
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.BICUBIC)


class Strip:
    """Keeps `path` showing the latest pictures: at most once a second, and always the last ones."""

    def __init__(self, path: Path, frame_rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._path, self._rate, self._clock = path, frame_rate, clock
        self._written = float("-inf")

    def show(self, pictures: Pictures, last: bool) -> None:
        """Write pictures unless others were written just now; the `last` of a pass are always written."""
        if last or self._clock() - self._written >= _SECONDS:
            write(self._path, pictures, self._rate)
            self._written = self._clock()
