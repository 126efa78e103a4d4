"""The options of `ltx-run` that say how frames are encoded. Standard library and click only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ltxrt.runtime.media.formats import CODECS, DEPTHS, Encoding

PATH = click.Path(path_type=Path)

_OPTIONS = (
    click.option("--codec", type=click.Choice(list(CODECS)), help="Video codec.  [default: the format's]"),
    click.option(
        "--crf",
        type=int,
        metavar="N",
        help="Constant quality of the codec: 0 is the best and largest.  [default: "
        + ", ".join(f"{row.crf} {name}" for name, row in CODECS.items())
        + "]",
    ),
    click.option(
        "--bit-depth",
        type=click.Choice([str(depth) for depth in DEPTHS]),
        help="Bits a channel: 10 in h264, h265 and av1; 16 in PNG and NumPy files.  [default: 8]",
    ),
    click.option("--no-metadata", is_flag=True, help="Do not write into the file how it was made."),
    click.option(
        "--from",
        "from_",
        type=PATH,
        metavar="VIDEO",
        help="Make a video again from what it says of itself; other options change it.",
    ),
    click.option(
        "--sources",
        type=PATH,
        multiple=True,
        metavar="DIR",
        help="Where to look for the images and videos of --from, besides its folder and this one.",
    ),
)


def encoding_options(command: Any) -> Any:
    """Decorator that gives `ltx-run` the options about files."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def taken(options: dict[str, Any]) -> Encoding:
    """The encoding that the options ask for, which are taken out of `options`."""
    depth = options.pop("bit_depth")
    return Encoding(options.pop("codec"), options.pop("crf"), 8 if depth is None else int(depth))
