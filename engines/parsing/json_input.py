"""Untrusted JSON: the one reader of manifests, records, reports and configs.

Python's parser accepts values that other code does not expect. Refused here are text that cannot be encoded
(lone surrogates), integers of hundreds of digits, infinite floats and NaN, duplicate names in an object, of
which the parser keeps the last, and nesting deep enough to exhaust the stack. Knows nothing of what the
values mean.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from ltxrt.engines.storage.files import NotRegularError, open_regular

DEPTH = 32  # levels of nested lists and objects; ours have up to 10
DIGITS = 20  # digits of an integer: those of 64 bits have 20
SMALL = 4 << 20  # bytes of a config or a shard index; those of large models have about 100 kB


def read(path: Path, limit: int) -> Any:
    """The value in the regular file at `path` of at most `limit` bytes. Raises OSError and ValueError."""
    return parse(read_bytes(path, limit))


def read_bytes(path: Path, limit: int) -> bytes:
    """A regular file's bytes, at most `limit`. Never blocks on a pipe or a device.

    Raises OSError, and ValueError with a phrase for the end of a sentence.
    """
    try:
        with open_regular(path) as file:
            if os.fstat(file.fileno()).st_size > limit:
                raise ValueError(f"larger than {_size(limit)}")
            return file.read(limit)
    except NotRegularError:
        raise ValueError("not a regular file") from None


def parse(text: bytes | str) -> Any:
    """The value in `text`, UTF-8. Raises ValueError with a phrase for the end of a sentence."""
    try:
        decoded = text.decode("utf-8-sig") if isinstance(text, bytes) else text
        value = json.loads(decoded, object_pairs_hook=_unique, parse_int=_whole, parse_constant=_constant)
    except RecursionError:
        raise ValueError("nested too deep") from None
    _check(value)
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) != len(pairs):
        raise ValueError("a name appears twice in one object")
    return entries


def _whole(digits: str) -> int:
    count = len(digits.lstrip("-"))
    if count > DIGITS:
        raise ValueError(f"a whole number of {count} digits")
    return int(digits)


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _check(value: Any) -> None:
    """Check level by level, so that deep nesting does not cause deep recursion."""
    level = [value]
    for _ in range(DEPTH):
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below.extend(item.keys())
                below.extend(item.values())
            elif isinstance(item, list):
                below.extend(item)
            elif isinstance(item, str):
                _text(item)
            elif isinstance(item, float) and not math.isfinite(item):
                raise ValueError("a number beyond what a float holds")
        if not below:
            return
        level = below
    raise ValueError(f"nested deeper than {DEPTH}")


def _text(item: str) -> None:
    try:
        item.encode()
    except UnicodeEncodeError:
        raise ValueError("a text with a lone surrogate") from None


def _size(limit: int) -> str:
    return f"{limit >> 20} MB" if limit >= 1 << 20 else f"{limit} bytes"
