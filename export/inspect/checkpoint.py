"""A description of a checkpoint in a few lines of text."""

from __future__ import annotations

import importlib.util
from collections import Counter
from pathlib import Path
from typing import Any

from ltxrt.engines.description import Description
from ltxrt.export import families
from ltxrt.export.checkpoint.part import Checkpoint

NOT_COMPARED = "tensors were not compared with the config, which takes torch: pip install 'ltxrt[export]'"


def describe(path: str | Path) -> str:
    """Lines on version, components, sizes, dtypes, config and licence; errors are the family's.

    Where torch is not installed, tensors are not compared with the config, and a line says so.
    """
    return "\n".join(explain_checkpoint(Path(path)).lines)


def explain_checkpoint(path: Path, compare: bool = True) -> Description:
    """The same with its data; `compare` False opens the headers alone."""
    torch = compare and importlib.util.find_spec("torch") is not None
    family = families.of(path)
    opened = family.open_checkpoint(path, {}, None, torch)
    lines = family.describe(opened)
    return Description(
        "checkpoint", tuple(lines if torch or not compare else [*lines, NOT_COMPARED]), _data(opened)
    )


def _data(opened: Checkpoint) -> dict[str, Any]:
    parts = {}
    for name, part in opened.parts.items():
        counts: Counter[str] = Counter()
        for tensor in part.weights.values():
            counts[tensor.dtype] += tensor.size
        total = sum(tensor.nbytes for tensor in part.weights.values())
        parts[name] = {"parameters": sum(counts.values()), "bytes": total, "dtypes": dict(counts)}
    row = opened.version
    return {"family": opened.family, "version": row.name, "licence": row.licence, "parts": parts}
