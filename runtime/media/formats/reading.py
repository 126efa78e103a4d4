"""Reads back what was written: frames and metadata."""

from __future__ import annotations

import zipfile
from fractions import Fraction
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray
from PIL import Image

from ltxrt.engines.errors import InputError
from ltxrt.engines.parsing import json_input
from ltxrt.runtime.media.formats.encoding import suffix_of
from ltxrt.runtime.media.readers import check_regular, damaged, open_video

_GIF = ("gif",)  # read by FFmpeg in `read_video`, whose frames have times
METADATA_BYTES = 8 << 20  # a prompt has up to 100,000 characters, and a request of conditions a thousand rows


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
    except InputError:
        raise  # names the file
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise InputError(f"{path}: has no readable metadata ({error})") from error


def _metadata(path: Path) -> Any:
    if path.is_dir():
        file = path / "metadata.json"
        check_regular(file, str(file))
        return json_input.read(file, METADATA_BYTES)
    suffix = suffix_of(path)
    if suffix == ".npy":
        raise ValueError("a .npy file holds frames alone; .npz has the metadata too")
    check_regular(path, str(path))
    if suffix == ".npz":
        return json_input.parse(_text_of_archive(path, "metadata"))
    if suffix == ".png":
        with damaged(str(path)), Image.open(path, formats=["PNG"]) as image:
            return dict(getattr(image, "text", {}))
    if suffix == ".gif":
        with damaged(str(path)), Image.open(path, formats=["GIF"]) as image:
            comment = image.info.get("comment", b"{}")[: METADATA_BYTES + 1]
        return json_input.parse(comment)
    with open_video(path, str(path)) as (container, _):
        return dict(container.metadata)


def _text_of_archive(path: Path, name: str) -> str:
    """A text in a `.npz` file, of a bounded size; nothing is unpickled."""
    with damaged(str(path)), zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as member:
        shape, _, dtype = _header(member)
        if shape != () or dtype.kind != "U" or dtype.itemsize > 4 * METADATA_BYTES:
            raise ValueError(f"its {name} is no text of an allowed size")
        return str(np.frombuffer(member.read(dtype.itemsize), dtype)[0])


def _header(member: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = npy.read_magic(member)
    if version != (1, 0):
        raise ValueError(f"a .npy member of version {version}")
    return npy.read_array_header_1_0(member)
