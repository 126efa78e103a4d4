"""Prints docs/reference/settings.md: every setting of a request, from the table of settings.

python .ci/settings.py > docs/reference/settings.md
"""

from __future__ import annotations

import math
import re
import sys
from typing import get_type_hints

from ltxrt.runtime.request.fields import GROUPS, OF_A_PASS, SETTINGS, Setting
from ltxrt.runtime.request.keywords import Keywords

BEGIN = """\
# Settings

The keywords of a pipeline's call and the fields of `Request`; `ltx-run` has an option for each. What is
left out, or None, comes from the bundle's preset where the table says so. `Media` is a file, an image of
Pillow, or an array ([images and videos](../python.md#images-and-videos)). Made by `python .ci/settings.py`
from the table of settings.
"""
# What is written otherwise in Python than on a command line.
WORDED = {
    "conditions": "Images or videos as parts of the video, each beginning at a frame.",
    "timesteps": "Explicit sigmas instead of steps, as in (1, 0.9875, 0.725).",
    "guidance_scale": "Classifier-free guidance; 1 is off; several for `guidance_timesteps`.",
    "skip_block_list": "Blocks that spatiotemporal guidance perturbs, for each timestep: ((11, 25), (28,)).",
    "second_pass": f"Settings of the second pass, by name: {', '.join(OF_A_PASS)}.",
    "noise": "The initial noise: a .npy file, or an array (1, C, f, h, w).",
    "seed": "Same seed, same video; None draws one.",
    "vae_memory": "Bytes for the autoencoder's activations; it works in blended tiles if it needs more.",
}
HEAD = "| keyword | is | default | from … to | what it does |\n|---|---|---|---|---|\n"
FLAGS = {f"--{name.replace('_', '-')}": name for name in SETTINGS}
FLAGS |= {row.option: row.name for row in SETTINGS.values() if row.option}


def page() -> str:
    parts = [BEGIN]
    for title, rows in GROUPS.items():
        parts.append(f"\n## {title}\n\n{HEAD}")
        parts += [f"| {' | '.join(_cells(row))} |\n" for row in rows]
    return "".join(parts)


def _cells(row: Setting) -> list[str]:
    bounds = "" if row.bounds is None else " … ".join(map(_bound, row.bounds))
    if row.default is not None:
        default = f"`{row.default!r}`"
    elif row.name == "prompt":
        default = "must be given"
    else:
        default = "preset" if row.shown is None else _named(row.shown) or "None"
    return [f"`{row.name}`", _type(row), default, bounds, WORDED.get(row.name) or _named(row.help)]


def _bound(value: float) -> str:
    return f"2^{math.log2(value):.0f}" if value > 2**31 else f"{value:g}"


def _named(text: str) -> str:
    """A text in which options are called what Python calls them."""
    return re.sub(r"--[a-z-]*[a-z]", lambda flag: f"`{FLAGS[flag[0]]}`", text)


def _type(row: Setting) -> str:
    """The kinds of values that it may have, without None, which leaves it open."""
    kind = get_type_hints(Keywords).get(row.name, str)
    if row.kind.words:
        return ", ".join(f'`"{word}"`' for word in row.kind.words)
    if row.name in ("image", "input_video"):
        return "`Media`"
    if row.name == "noise":
        return "`Path \\| str \\| ndarray`"
    text = re.sub(r"[\w.]*\.(\w+)", r"\1", str(kind) if not isinstance(kind, type) else kind.__name__)
    text = re.sub(r" \| None$", "", text.replace("typing.", ""))
    return f"`{text}`".replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(page())
