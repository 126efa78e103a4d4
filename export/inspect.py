"""A description of a checkpoint in a few lines of text, for `ltx-export inspect`."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from ltxrt.export import families

NOT_COMPARED = "tensors were not compared with the config, which takes torch: pip install 'ltxrt[export]'"


def describe(path: str | Path) -> str:
    """Lines on version, components, sizes, dtypes, config and licence; errors are the family's.

    Where torch is not installed, tensors are not compared with the config, and a line says so.
    """
    torch = importlib.util.find_spec("torch") is not None
    family = families.of(Path(path))
    lines = family.describe(family.open_checkpoint(Path(path), {}, None, torch))
    return "\n".join(lines if torch else [*lines, NOT_COMPARED])
