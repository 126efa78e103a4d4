"""The tensor contract: every component's inputs and outputs, stated once.

A shape is made of ints (fixed by the checkpoint), symbols (`"B"`, vary between calls) and affine terms of one
symbol (`"8*f-7"`: pixel frames of `f` latent frames). Symbols are bound across all inputs of a call, so two
inputs that disagree are refused. Dynamic axes, sample feeds and checks are derived from here; the traced
modules' argument names are these names, and so are the runtime's keywords.

The contracts themselves belong to the model families (`ltxrt.engines.families`).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ltxrt.engines.errors import InputError

Dim = int | str
DTYPES: dict[str, type[np.generic]] = {"f32": np.float32, "i64": np.int64, "bool": np.bool_}

_AFFINE = re.compile(r"(?:(?P<factor>[1-9]\d*)\*)?(?P<symbol>[A-Za-z]\w*)(?P<offset>[+-]\d+)?")


@dataclass(frozen=True)
class Affine:
    """`factor * symbol + offset`, the only arithmetic in shapes."""

    symbol: str
    factor: int = 1
    offset: int = 0

    @classmethod
    def parse(cls, text: str) -> Affine:
        match = _AFFINE.fullmatch(text)
        if match is None:
            raise InputError(f"shape term {text!r} is not a symbol or an affine term such as '8*f-7'")
        return cls(match["symbol"], int(match["factor"] or 1), int(match["offset"] or 0))

    def value(self, symbol_value: int) -> int:
        return self.factor * symbol_value + self.offset

    def solve(self, size: int) -> int | None:
        """The symbol's value for which this term is `size`, None if there is no positive one."""
        quotient, remainder = divmod(size - self.offset, self.factor)
        return quotient if remainder == 0 and quotient >= 1 else None


@dataclass(frozen=True)
class Tensor:
    """One input or output: name, dtype (`f32`, `i64`, `bool`) and symbolic shape."""

    name: str
    dtype: str
    shape: tuple[Dim, ...]

    def resolve(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """The concrete shape for `sizes`, which gives every symbol's value."""
        terms = [d if isinstance(d, int) else Affine.parse(d) for d in self.shape]
        return tuple(t if isinstance(t, int) else t.value(sizes[t.symbol]) for t in terms)

    def __str__(self) -> str:
        return f"{self.name} {self.dtype} ({', '.join(map(str, self.shape))})"


@dataclass(frozen=True)
class Contract:
    """A component's inputs and outputs, and what callers guarantee about the symbols' values.

    `padding`: symbol → a multiple to which inputs may be padded with zeros, because masks exclude the padding
    from all results. `tiles`: symbol → the smallest value in a call of a
    component whose large inputs the host cuts into tiles, which bounds its memory. `fixed`: symbol
    → the one value that calls have. `tokens`: the symbols that count the tokens of an attention. These fields
    are for building and running engines, and are not stored in a bundle.
    """

    component: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    padding: Mapping[str, int] = field(default_factory=dict, hash=False)
    tiles: Mapping[str, int] = field(default_factory=dict, hash=False)
    fixed: Mapping[str, int] = field(default_factory=dict, hash=False)
    tokens: tuple[str, ...] = ()

    @property
    def symbols(self) -> tuple[str, ...]:
        """Every symbol of the inputs, in order of appearance."""
        terms = [Affine.parse(d).symbol for t in self.inputs for d in t.shape if isinstance(d, str)]
        return tuple(dict.fromkeys(terms))

    def input(self, name: str) -> Tensor:
        for tensor in self.inputs:
            if tensor.name == name:
                return tensor
        raise InputError(f"{self.component} has no input {name!r}; it takes {self._names()}")

    def only(self, names: Collection[str]) -> Contract:
        """This contract with the inputs in `names` alone."""
        kept = {self.input(name).name for name in names}
        return replace(self, inputs=tuple(t for t in self.inputs if t.name in kept))

    def check(self, feed: Mapping[str, np.ndarray], known: Mapping[str, int] | None = None) -> dict[str, int]:
        """Each symbol's value in a feed; InputError if its names, dtypes or shapes are not the contract's.

        `known` has the symbols that other inputs have fixed already.
        """
        if set(feed) != {t.name for t in self.inputs}:
            raise InputError(f"{self.component} takes {self._names()}; got {', '.join(feed) or 'nothing'}")
        sizes = dict(known or {})
        for tensor in self.inputs:
            self.bind(tensor, feed[tensor.name], sizes)
        return sizes

    def bind(self, tensor: Tensor, array: np.ndarray, sizes: dict[str, int]) -> None:
        """Check one array against `tensor`, adding the symbols it fixes to `sizes`."""
        if not isinstance(array, np.ndarray):
            raise InputError(
                f"{self.component}: wants {tensor} as a NumPy array; got {tensor.name} {type(array).__name__}"
            )
        fits = array.dtype == DTYPES[tensor.dtype] and array.ndim == len(tensor.shape)
        found = dict(sizes)
        for dim, size in zip(tensor.shape, array.shape) if fits else ():
            if isinstance(dim, int):
                fits = fits and dim == size
                continue
            term = Affine.parse(dim)
            value = term.solve(size)
            fits = fits and value is not None and found.setdefault(term.symbol, value) == value
        if not fits:
            known = ", ".join(f"{k}={v}" for k, v in sizes.items())
            raise InputError(
                f"{self.component}: wants {tensor}{' with ' + known if known else ''}; "
                f"got {tensor.name} {array.dtype} {array.shape}"
            )
        sizes.update(found)

    def dynamic_axes(self) -> dict[str, dict[int, str]]:
        """Per input: axis → shape term, for every axis that varies between calls."""
        return {t.name: {i: d for i, d in enumerate(t.shape) if isinstance(d, str)} for t in self.inputs}

    def sample(self, sizes: Mapping[str, int], rng: np.random.Generator) -> dict[str, np.ndarray]:
        """A valid feed of random values: normal floats, zero integers, true flags."""
        missing = [s for s in self.symbols if s not in sizes]
        if missing:
            raise InputError(f"{self.component}: no size given for {', '.join(missing)}")
        return {t.name: _sample(t, t.resolve(sizes), rng) for t in self.inputs}

    def to_json(self) -> dict[str, Any]:
        def rows(tensors: Sequence[Tensor]) -> list[dict[str, Any]]:
            return [{"name": t.name, "dtype": t.dtype, "shape": list(t.shape)} for t in tensors]

        return {"inputs": rows(self.inputs), "outputs": rows(self.outputs)}

    def _names(self) -> str:
        return ", ".join(t.name for t in self.inputs)


def _sample(tensor: Tensor, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    if tensor.dtype == "f32":
        return rng.standard_normal(shape, dtype=np.float32)
    return np.full(shape, tensor.dtype == "bool", DTYPES[tensor.dtype])
