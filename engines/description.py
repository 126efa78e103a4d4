"""What a file is, in lines of text and as data: what `ltx-export inspect` prints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Description:
    """`kind` names what it is ("bundle", "video"); `lines` are for people, `data` is JSON with the same."""

    kind: str
    lines: tuple[str, ...]
    data: Mapping[str, Any] = field(default_factory=dict)


def size(count: float) -> str:
    """A number of bytes for people."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6)):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count / 1e3:.3g} kB"
