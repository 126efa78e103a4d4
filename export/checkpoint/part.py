"""A part of a checkpoint, a network's config and tensors, and the check that both agree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from ltxrt.engines.errors import CheckpointError
from ltxrt.export.checkpoint.safetensors import WEIGHTS, StoredTensor

C = TypeVar("C")
Shapes = Mapping[str, tuple[int, ...]]
_SHOWN = 4


@dataclass(frozen=True)
class Part(Generic[C]):
    """A network's resolved config and its tensors by official name, without prefix."""

    config: C
    weights: Mapping[str, StoredTensor]


def check_tensors(part: Part[Any], expected: Shapes, name: str = "checkpoint") -> None:
    """Raise CheckpointError, which shows the differences, unless the part's tensors are `expected`."""
    missing = [n for n in expected if n not in part.weights]
    surplus = [n for n in part.weights if n not in expected]
    reshaped = [
        f"{n} {part.weights[n].shape} instead of {shape}"
        for n, shape in expected.items()
        if n in part.weights and part.weights[n].shape != shape
    ]
    mistyped = [f"{n} {t.dtype}" for n, t in part.weights.items() if n in expected and t.dtype not in WEIGHTS]
    kinds = f"not of {', '.join(WEIGHTS)}"
    problems = {"missing": missing, "surplus": surplus, "misshapen": reshaped, kinds: mistyped}
    found = [f"{len(items)} {word} ({first(items)})" for word, items in problems.items() if items]
    if found:
        raise CheckpointError(f"{name}: tensors do not match the config: {'; '.join(found)}")


def first(items: list[str]) -> str:
    """The first few names, for an error message."""
    return ", ".join(items[:_SHOWN]) + (", …" if len(items) > _SHOWN else "")
