"""A strict, bounded reader of protobuf's wire format that does not need the `onnx` package.

A deployment machine has no `onnx`, and little must be known of a graph before a backend parses it. Other
parsers take the last of a repeated field or merge both, and skip unknown fields; here both are refused, so
that what was checked is what a backend reads (https://protobuf.dev/programming-guides/encoding).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

FIELDS = 4_000_000  # of a file, read in seconds; graphs of released models have under 200,000
_VARINT_BYTES = 10

Value = int | memoryview
Fields = dict[int, list[Value]]


class WireError(ValueError):
    """The bytes are not a message of this shape. Its text is a phrase for the end of a sentence."""


@dataclass(frozen=True)
class Shape:
    """A message's known fields: number → whether it may be repeated; `name` is for errors."""

    name: str
    fields: Mapping[int, bool]


class Reader:
    """Reads the messages of one file, counts their fields, and stops at FIELDS."""

    def __init__(self) -> None:
        self._left = FIELDS

    def message(self, data: memoryview, shape: Shape) -> Fields:
        """Every field of a message: integers for numbers, views for bytes, texts, messages and fixed widths.

        Raises WireError for a field that `shape` does not have, for a repeated field that `shape` has once,
        and for malformed bytes.
        """
        found: Fields = {}
        position, end = 0, len(data)
        while position < end:
            self._left -= 1
            if self._left < 0:
                raise WireError(f"more than {FIELDS} fields")
            key = data[position]  # most numbers are one byte: reading it here halves the time of a graph
            if key < 0x80:
                position += 1
            else:
                key, position = _varint(data, position, end)
            number, kind = key >> 3, key & 7
            if number not in shape.fields:
                raise WireError(f"field {number} of {shape.name}, which export never writes")
            value: Value
            if kind == 0:
                value, position = _varint(data, position, end)
            else:
                if kind == 2 and position < end and (length := data[position]) < 0x80:
                    position += 1
                else:
                    length, position = _length(data, position, end, kind)
                value, position = data[position : position + length], position + length
                if position > end:
                    raise WireError(f"{shape.name} is cut off")
            if number not in found:
                found[number] = [value]
            elif shape.fields[number]:
                found[number].append(value)
            else:
                raise WireError(f"field {number} of {shape.name} twice")
        return found


def integers(values: list[Value]) -> list[int]:
    """A repeated integer, packed or not; negative ones are above 2⁶³."""
    numbers: list[int] = []
    for value in values:
        if isinstance(value, int):
            numbers.append(value)
            continue
        position = 0
        while position < len(value):
            number, position = _varint(value, position, len(value))
            numbers.append(number)
    return numbers


def number(fields: Fields, key: int) -> int:
    """The integer in field `key`, 0 if it is absent."""
    value = fields.get(key, [0])[0]
    if not isinstance(value, int):
        raise WireError(f"field {key} is not a number")
    return value


def text(fields: Fields, key: int) -> str:
    """The text in field `key`, "" if it is absent."""
    values = fields.get(key)
    return "" if values is None else decoded(values[0])


def decoded(value: Value) -> str:
    try:
        return str(view(value), "utf-8")
    except UnicodeDecodeError as error:
        raise WireError("a text that is not UTF-8") from error


def view(value: Value) -> memoryview:
    if isinstance(value, int):
        raise WireError("a number where a message belongs")
    return value


def _length(data: memoryview, position: int, end: int, kind: int) -> tuple[int, int]:
    if kind == 2:
        return _varint(data, position, end)
    if kind not in (1, 5):
        raise WireError(f"wire type {kind}")
    return (8 if kind == 1 else 4), position


def _varint(data: memoryview, position: int, end: int) -> tuple[int, int]:
    """The number at `position`, and the position of the next byte."""
    if position < end and data[position] < 0x80:
        return data[position], position + 1
    result = 0
    for i in range(_VARINT_BYTES):
        if position + i >= end:
            raise WireError("a number is cut off")
        byte = data[position + i]
        result |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            return result, position + i + 1
    raise WireError("a number of more than 64 bits")
