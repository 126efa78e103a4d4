"""Typed reading of a checkpoint's JSON configs: errors name the field, what was found and what is allowed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ltxrt.engines.errors import CheckpointError
from ltxrt.engines.parsing import json_input

MAX_JSON_BYTES = json_input.SMALL  # the shard index of a 13B model is well under 1 MB
MOST = 1e9  # bound of any number in a config; the largest in use, a rotary base, is 10000
_REQUIRED = object()


def load_json(path: Path) -> dict[str, Any]:
    """The JSON object in `path`; a missing, oversized or malformed file is a CheckpointError."""
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    if path.stat().st_size > MAX_JSON_BYTES:
        raise CheckpointError(f"{path}: is larger than {MAX_JSON_BYTES >> 20} MB, too much for a JSON config")
    return parse_json(json_input.read_bytes(path, MAX_JSON_BYTES), str(path))


def parse_json(text: str | bytes, where: str) -> dict[str, Any]:
    """The JSON object in `text`; `where` names it in errors."""
    try:
        data = json_input.parse(text)
    except ValueError as error:
        raise CheckpointError(f"{where}: is not JSON ({error})") from None
    if not isinstance(data, dict):
        raise CheckpointError(f"{where}: must be a JSON object, is {type(data).__name__}")
    return data


@dataclass(frozen=True)
class Fields:
    """A JSON object whose fields are read by type; a field without a default is required."""

    data: Mapping[str, Any]
    where: str

    def integer(self, key: str, default: Any = _REQUIRED, most: int = 1 << 20) -> int:
        """A whole number in 1..most: sizes are bounded, because they determine loops and allocations."""
        value = self._get(key, default)
        if type(value) is not int or not 1 <= value <= most:
            raise self._wrong(key, value, f"a whole number from 1 to {most}")
        return value

    def number(self, key: str, default: Any = _REQUIRED) -> float:
        value = self._get(key, default)
        if type(value) not in (int, float) or not -MOST <= value <= MOST:
            raise self._wrong(key, value, f"a number from {-MOST:g} to {MOST:g}")
        return float(value)

    def flag(self, key: str, default: Any = _REQUIRED) -> bool:
        value = self._get(key, default)
        if type(value) is not bool:
            raise self._wrong(key, value, "true or false")
        return value

    def numbers(self, key: str, default: Any = _REQUIRED) -> tuple[float, ...]:
        return tuple(Fields({key: v}, self.where).number(key) for v in self.sequence(key, default))

    def integers(self, key: str, default: Any = _REQUIRED) -> tuple[int, ...]:
        return tuple(Fields({key: v}, self.where).integer(key) for v in self.sequence(key, default))

    def flags(self, key: str, default: Any = _REQUIRED) -> tuple[bool, ...]:
        return tuple(Fields({key: v}, self.where).flag(key) for v in self.sequence(key, default))

    def sequence(self, key: str, default: Any = _REQUIRED, most: int = 64) -> list[Any]:
        value = self._get(key, default)
        if not isinstance(value, list | tuple) or not 1 <= len(value) <= most:
            raise self._wrong(key, value, f"a list of 1 to {most} entries")
        return list(value)

    def must_be(self, supported: Mapping[str, Any]) -> None:
        """Raise CheckpointError if a field of `supported` is present with another value."""
        for key, wanted in supported.items():
            value = self.data.get(key, wanted)
            if value != wanted:
                raise self._wrong(key, value, f"{wanted!r}, the only one supported")

    def _get(self, key: str, default: Any) -> Any:
        value = self.data.get(key, default)
        if value is _REQUIRED:
            raise CheckpointError(f"{self.where}: field {key!r} is missing")
        return value

    def _wrong(self, key: str, value: Any, allowed: str) -> CheckpointError:
        return CheckpointError(f"{self.where}: {key} is {value!r:.80}; it must be {allowed}")
