"""`ltx-run --list-presets`: a bundle's presets as text."""

from __future__ import annotations

from typing import Any

from ltxrt.engines.bundle import Bundle
from ltxrt.engines.families import named


def listed(bundle: Bundle) -> str:
    """The presets as text, one field per line."""
    lines = [f"{named(bundle.family).title} {bundle.version}"]
    for name, preset in bundle.presets.items():
        lines.append(f"{name}:")
        lines += [f"  {_key(n)}: {value}" for n, value in vars(preset).items() if n != "passes"]
        for number, one in enumerate(preset.passes, 1):
            lines.append(f"  pass {number}:")
            lines += [f"    {_key(n)}: {_shown(value)}" for n, value in vars(one).items()]
    return "\n".join(lines)


def _key(name: str) -> str:
    return name.replace("_", "-")


def _shown(value: Any) -> str:
    """A value in the syntax of its option."""
    if not isinstance(value, tuple):
        return str(value)
    parts = (
        (value if not isinstance(value[0], tuple) else (",".join(map(str, v)) for v in value))
        if value
        else ()
    )
    return (";" if value and isinstance(value[0], tuple) else ",").join(map(str, parts))
