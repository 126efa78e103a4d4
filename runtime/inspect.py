"""What `ltx-run` takes and makes, explained for `ltx-export inspect`: videos, settings, noise, pictures."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np

from ltxrt.engines.description import Description
from ltxrt.engines.errors import InputError
from ltxrt.runtime.media.formats.reading import read_metadata
from ltxrt.runtime.media.readers import check_regular, damaged, open_image, open_video
from ltxrt.runtime.request import record
from ltxrt.runtime.request.record import KEY

_VIDEOS = (".mp4", ".webm", ".gif", ".mkv", ".mov", ".npz")
_PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".avif")
_SHOWN = 400  # characters of a value


def explain(path: Path) -> Description | None:
    """What the file or folder is, None for one that the runtime does not take.

    Raises InputError for a file that is damaged.
    """
    suffix = path.suffix.lower()
    if path.is_dir():
        return _video(path) if (path / "metadata.json").is_file() else None
    if suffix in (".yaml", ".yml"):
        return _settings(path)
    if suffix == ".npy":
        return _array(path)
    if suffix in (".txt", ".jsonl"):
        return _prompts(path)
    if suffix in _VIDEOS or (suffix == ".png" and KEY in _metadata(path)):
        return _video(path)
    return _picture(path) if suffix in _PICTURES else None


def _video(path: Path) -> Description:
    """Size and length, and the metadata that say how it was made."""
    shape = {} if path.is_dir() or path.suffix.lower() in (".npz", ".png") else _shape(path)
    known = _metadata(path)
    made = known.get("software", "").startswith("ltxrt")
    size = f", {shape['width']}x{shape['height']} at {shape['frame_rate']:g} frames/s" if shape else ""
    what = "video made by ltx-run" if made else "video without metadata of ltx-run"
    told = _told(path) if KEY in known else [f"  {key}: {_clipped(value)}" for key, value in known.items()]
    return Description("video", (f"{path}: {what}{size}", *told), {**shape, "metadata": known})


def _told(path: Path) -> list[str]:
    """What the video says of how it was made, for people."""
    try:
        made = record.read(path)
    except InputError as error:
        return [f"  {error}"]
    with_ = [f"  {name.replace('_', '-')}: {_clipped(_plain(value))}" for name, value in made.request.items()]
    of = [f"  from {one.name} ({one.setting.replace('_', ' ')})" for one in made.sources]
    engines = ", ".join(f"{name} {precision}" for name, precision in made.precisions.items())
    place = f" ({made.place})" if made.place else ""
    return [
        *with_,
        *of,
        f"  ran {engines} on {made.backend}{place}",
        f"  again: ltx-run --bundle DIR --from {shlex.quote(str(path))} --output NEW",
    ]


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _shape(path: Path) -> dict[str, float]:
    with open_video(path, str(path), ("gif",)) as (_, stream), damaged(str(path)):
        rate = float(stream.average_rate or 0)
        return {
            "width": stream.codec_context.width,
            "height": stream.codec_context.height,
            "frame_rate": rate,
        }


def _metadata(path: Path) -> dict[str, str]:
    try:
        return read_metadata(path)
    except InputError:
        return {}  # a video of somebody else has none that we read


def _clipped(value: str) -> str:
    line = " ".join(value.split())
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}…"


def _settings(path: Path) -> Description:
    from ltxrt.runtime.request import yaml_file

    file = yaml_file.read(path)
    fields = {name: str(value) for name, value in file.fields().items()}
    kind = "an official pipeline file" if file.official else "settings"
    lines = [f"{path}: {kind} for ltx-run --config", *(f"  {n}: {_clipped(v)}" for n, v in fields.items())]
    if file.ignored:
        lines.append(f"  not used here: {', '.join(file.ignored)}")
    return Description("settings", tuple(lines), {"settings": fields, "ignored": list(file.ignored)})


def _array(path: Path) -> Description:
    check_regular(path, str(path))
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: is no readable .npy array ({error})") from error
    frames = array.ndim == 4 and array.shape[-1] == 3 and array.dtype == np.uint8
    what = "frames" if frames else "noise, for ltx-run --noise-file" if array.ndim in (4, 5) else "an array"
    shape = list(array.shape)
    line = f"{path}: {what}: {array.dtype} of shape {'x'.join(map(str, shape))}"
    return Description("array", (line,), {"dtype": str(array.dtype), "shape": shape})


def _prompts(path: Path) -> Description:
    from ltxrt.runtime.request import prompts

    found = prompts.read(path)
    return Description(
        "prompts",
        (f"{path}: {len(found)} request{'s' * (len(found) != 1)} for ltx-run --prompts",),
        {"requests": len(found)},
    )


def _picture(path: Path) -> Description | None:
    image = open_image(path, str(path))
    if image is None:
        return None
    with image:
        line = f"{path}: {image.format} picture of {image.width}x{image.height}, for ltx-run --image"
        return Description(
            "picture", (line,), {"format": image.format, "width": image.width, "height": image.height}
        )
