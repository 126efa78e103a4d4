"""Dataclasses from parsed JSON, strictly: an unknown, missing, mistyped or excessive field is an error that
names it.

Bounds are declared with a field, `Annotated[int, Within(1, 512)]`. Fields that declare none have the default
bounds of this module, so that nothing is unbounded by omission.
"""

from __future__ import annotations

import dataclasses
import sys
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, TypeVar

from ltxrt.engines.errors import BundleError

T = TypeVar("T")

WHOLE = 1 << 53  # integers are in −WHOLE..WHOLE: enough for file sizes, and exact as a float
LENGTH = 1 << 16  # entries in a list
ENTRIES = 4096  # entries in an object that maps names to values
TEXT = 1 << 16  # characters in a text
NAME = 200  # characters in a key


@dataclass(frozen=True)
class Within:
    """A number in low..high, both included."""

    low: float
    high: float

    def problem(self, value: Any) -> str:
        if self.low <= value <= self.high:
            return ""
        return f"must be between {self.low:.10g} and {self.high:.10g}"


@dataclass(frozen=True)
class Most:
    """A list of least..most entries, or a text of as many characters."""

    most: int
    least: int = 0

    def problem(self, value: Any) -> str:
        return (
            "" if self.least <= len(value) <= self.most else f"must have {self.least} to {self.most} entries"
        )


class OneOf:
    """A text that is one of a few."""

    def __init__(self, *choices: str) -> None:
        self.choices = choices

    def problem(self, value: Any) -> str:
        return "" if value in self.choices else f"must be {' or '.join(self.choices)}"


def to_json(value: Any) -> Any:
    """A dataclass as plain JSON values."""
    return dataclasses.asdict(value)


def from_json(cls: type[T], data: Any, where: str, types: Mapping[str, Any] | None = None) -> T:
    """Build `cls` from parsed JSON; `where` names the place in the file for error messages.

    `types` are of fields of `cls` that it declares as Any, and that something else in the file decides.
    """
    if types:
        return typing.cast(T, _decode_dataclass(cls, data, where, types))
    return typing.cast(T, _decode(cls, data, where))


def _decode(kind: Any, data: Any, where: str) -> Any:
    if typing.get_origin(kind) is Annotated:
        base, *rules = typing.get_args(kind)
        value = _decode(base, data, where)
        for rule in rules:
            if problem := rule.problem(value):
                raise BundleError(f"{where}: {problem}, got {_shown(data)}")
        return value
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(typing.cast(type, kind), data, where)
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        if data is None and type(None) in args:
            return None
        return _decode(next(a for a in args if a is not type(None)), data, where)
    if origin is tuple:
        return _decode_tuple(args, data, where)
    if origin is dict:
        return _decode_dict(args[1], data, where)
    if kind is Any:
        return data
    return _decode_plain(kind, data, where)


def _decode_plain(kind: Any, data: Any, where: str) -> Any:
    if kind is float and type(data) in (int, float):
        if not abs(data) <= sys.float_info.max:
            raise BundleError(f"{where}: expected a finite number, got {_shown(data)}")
        return float(data)
    if type(data) is not kind:
        raise BundleError(f"{where}: expected {kind.__name__}, got {_shown(data)}")
    if kind is int and abs(data) > WHOLE:
        raise BundleError(f"{where}: must be between {-WHOLE} and {WHOLE}, got {_shown(data)}")
    if kind is str and len(data) > TEXT:
        raise BundleError(f"{where}: must have at most {TEXT} characters, has {len(data)}")
    return data


def _shown(data: Any) -> str:
    """The beginning of a value for a message, without formatting huge numbers."""
    if isinstance(data, int) and abs(data) > WHOLE:
        return f"a number of {data.bit_length()} bits"
    if isinstance(data, list | tuple | dict):
        return f"{type(data).__name__} of {len(data)} entries" if len(data) > 8 else f"{data!r:.60}"
    return f"{data[:60]!r:.60}" if isinstance(data, str) else f"{data!r:.60}"


def _decode_tuple(args: tuple[Any, ...], data: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(data, list | tuple):
        raise BundleError(f"{where}: expected a list, got {_shown(data)}")
    if len(data) > LENGTH:
        raise BundleError(f"{where}: must have at most {LENGTH} entries, has {len(data)}")
    if args[-1] is not Ellipsis and len(data) != len(args):
        raise BundleError(f"{where}: expected {len(args)} values, got {len(data)}")
    kinds = [args[0]] * len(data) if args[-1] is Ellipsis else args
    return tuple(_decode(k, v, f"{where}[{i}]") for i, (k, v) in enumerate(zip(kinds, data)))


def _decode_dict(kind: Any, data: Any, where: str) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise BundleError(f"{where}: expected an object, got {_shown(data)}")
    if len(data) > ENTRIES:
        raise BundleError(f"{where}: must have at most {ENTRIES} entries, has {len(data)}")
    for key in data:
        if len(key) > NAME or not key.isprintable():
            raise BundleError(
                f"{where}: {_shown(key)} is not a name; it must be up to {NAME} printable characters"
            )
    return {key: _decode(kind, value, f"{where}.{key}") for key, value in data.items()}


def _decode_dataclass(cls: type, data: Any, where: str, types: Mapping[str, Any] | None = None) -> Any:
    if not isinstance(data, dict):
        raise BundleError(f"{where}: expected an object, got {_shown(data)}")
    hints = {**_hints(cls), **(types or {})}
    absent = hints.keys() - data.keys() - _optional(cls)
    for problem, names in (("unknown", data.keys() - hints.keys()), ("missing", absent)):
        if names:
            shown = ", ".join(name if name.isprintable() else repr(name) for name in sorted(map(str, names)))
            raise BundleError(f"{where}: {problem} field {shown:.200}")
    given = {name: kind for name, kind in hints.items() if name in data}
    value = cls(**{name: _decode(kind, data[name], f"{where}.{name}") for name, kind in given.items()})
    problem = value.problem() if hasattr(value, "problem") else ""
    if problem:
        raise BundleError(f"{where}: {problem}")
    return value


@lru_cache(maxsize=64)
def _optional(cls: Any) -> frozenset[str]:
    """The fields that may be left out: those with a default."""
    return frozenset(f.name for f in dataclasses.fields(cls) if f.default is not dataclasses.MISSING)


@lru_cache(maxsize=64)
def _hints(cls: Any) -> dict[str, Any]:
    """Each field's type with its bounds."""
    hints = typing.get_type_hints(cls, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}
