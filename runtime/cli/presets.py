"""`ltx-run --list-presets`: a bundle's presets as text."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from ltxrt.engines.bundle import Bundle, read_bundle
from ltxrt.engines.families import named
from ltxrt.engines.terminal import result


def show(folder: Path) -> None:
    """Print the presets of the bundle in `folder`."""
    bundle = read_bundle(folder)
    presets = {name: dataclasses.asdict(preset) for name, preset in bundle.presets.items()}
    result(listed(bundle), {"version": bundle.version, "presets": presets})


def listed(bundle: Bundle) -> str:
    """The presets as text, one field per line."""
    lines = [f"{named(bundle.family).title} {bundle.version}"]
    for name, preset in bundle.presets.items():
        lines.append(f"{name}:")
        lines += [f"  {_key(n)}: {value}" for n, value in vars(preset).items() if n != "passes"]
        for number, one in enumerate(preset.passes, 1):
            lines.append(f"  pass {number}:")
            given = {n: value for n, value in vars(one).items() if value is not None}
            lines += [f"    {_key(n)}: {_shown(value)}" for n, value in given.items()]
    return "\n".join(lines)


def _key(name: str) -> str:
    return name.replace("_", "-")


def _shown(value: Any) -> str:
    """A value in the syntax of its option."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, tuple):
        return str(value)
    parts = (
        (value if not isinstance(value[0], tuple) else (",".join(map(str, v)) for v in value))
        if value
        else ()
    )
    return (";" if value and isinstance(value[0], tuple) else ",").join(map(str, parts))
