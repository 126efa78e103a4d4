"""A checkpoint as all families have it: parts, each a network's config and its tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

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


class Release(Protocol):
    """Which release a checkpoint is of."""

    @property
    def name(self) -> str:
        """As the family calls it."""

    @property
    def licence(self) -> str:
        """Of the weights, in a sentence."""


class Checkpoint(Protocol):
    """An opened checkpoint of any family."""

    @property
    def family(self) -> str:
        """A name in `ltxrt.export.families.FAMILIES`."""

    @property
    def parts(self) -> Mapping[str, Part[Any]]:
        """The parts there are, by name."""

    @property
    def version(self) -> Release:
        """Which release it is."""

    @property
    def source(self) -> str:
        """The files it came from, as text."""


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
