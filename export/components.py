"""How a component is made from a checkpoint: what a family's rows say, and what is read from them.

Contracts come from `ltxrt.engines.contract`; adding a component to a family is one row in its table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ltxrt.engines.errors import CheckpointError, InputError, MissingPackageError, setting
from ltxrt.export import families
from ltxrt.export.checkpoint.part import Checkpoint, Part, Shapes, check_tensors
from ltxrt.export.checkpoint.safetensors import StoredTensor

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ltxrt.export.graph.fp8 import Layout


def _nothing(_config: Any) -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Form:
    """The config to build the module from and factors for weights, each from the checkpoint's config."""

    config: Callable[[Any], Any] = lambda config: config
    scales: Callable[[Any], dict[str, float]] = _nothing


_PLAIN = Form()


@dataclass(frozen=True)
class Component:
    """How one component is made.

    part: the checkpoint's part that it comes from; names: prefixes of the tensors it uses, all if empty.
    constants: the buffers that no checkpoint holds.
    forms: per precision, in which other form the same function is computed where the plain one would not do.
    fp8: which of its products may be FP8; None for a component that is not quantised.
    tokenizer: writes the tokenizer.json that goes with it: (checkpoint, target).
    given: what a user adds where a checkpoint lacks the part.
    """

    part: str
    module: Callable[[Any], nn.Module]
    names: tuple[str, ...] = ()
    constants: Callable[[Any], dict[str, Tensor]] = _nothing
    forms: Mapping[str, Form] | None = None
    fp8: Layout | None = None
    tokenizer: Callable[[Any, Path], None] | None = None
    given: str = "another checkpoint"

    def form(self, precision: str) -> Form:
        """How the component is computed in `precision`."""
        return (self.forms or {}).get(precision, _PLAIN)


def rows(checkpoint: Checkpoint) -> Mapping[str, Component]:
    """The components of the checkpoint's family, by name."""
    try:
        return families.family(checkpoint.family).components()
    except ModuleNotFoundError as error:
        raise MissingPackageError(error.name or "torch", "export") from error


def row(checkpoint: Checkpoint, name: str) -> Component:
    """One of them. Raises InputError for a name that the family has not."""
    known = rows(checkpoint)
    if name not in known:
        raise InputError(f"{setting('component')} {name!r:.60}: must be one of {', '.join(known)}")
    return known[name]


def available(checkpoint: Checkpoint) -> tuple[str, ...]:
    """The components whose part the checkpoint has."""
    return tuple(name for name, row in rows(checkpoint).items() if row.part in checkpoint.parts)


def part(checkpoint: Checkpoint, name: str) -> Part[Any]:
    """The checkpoint's part that component `name` is made from."""
    wanted = row(checkpoint, name)
    if wanted.part not in checkpoint.parts:
        purpose = "" if wanted.part == name else f" for {name}"
        raise CheckpointError(f"{checkpoint.source} has no {wanted.part}{purpose}; give {wanted.given}")
    return checkpoint.parts[wanted.part]


def weights(checkpoint: Checkpoint, name: str) -> dict[str, StoredTensor]:
    """The tensors that component `name` uses, by official name."""
    prefixes = row(checkpoint, name).names
    tensors = part(checkpoint, name).weights
    return {n: t for n, t in tensors.items() if not prefixes or n.startswith(prefixes)}


def part_shapes(known: Mapping[str, Component], name: str, config: Any) -> Shapes:
    """Every weight of a checkpoint's part, by official name: what all components made from it use."""
    from ltxrt.export.graph.layers import stored_shapes

    made = [stored_shapes(partial(row.module, config)) for row in known.values() if row.part == name]
    return {n: shape for shapes in made for n, shape in shapes.items()}


def facts(checkpoint: Checkpoint) -> Any:
    """What the runtime must know. Raises CheckpointError where parts do not belong together."""
    return families.family(checkpoint.family).facts(checkpoint)


def check(checkpoint: Checkpoint) -> None:
    """Refuse a checkpoint with a part whose tensors are not those that its networks are built with.

    A config says by `depth` how many blocks that takes, each with tensors of its own.
    """
    for name, found in checkpoint.parts.items():
        depth, count = found.config.depth, len(found.weights)
        if depth > count:  # before as many are built
            raise CheckpointError(f"{name}: the config has {depth} blocks, the checkpoint {count} tensors")
        check_tensors(found, part_shapes(rows(checkpoint), name, found.config), name.replace("_", " "))
