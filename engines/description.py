"""What things are, for people: a file in lines of text, bytes and seconds in words.

Files and disks are counted in GB, as hubs and systems do, memory in GiB, as options take it. Standard library
only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Description:
    """`kind` names what it is ("bundle", "video"); `lines` are for people, `data` is JSON with the same."""

    kind: str
    lines: tuple[str, ...]
    data: Mapping[str, Any] = field(default_factory=dict)


def file_size(count: float) -> str:
    """Bytes of files, downloads and disks: "512 B", "1.3 MB", "9.5 GB"."""
    return _scaled(count, 1000, ("B", "kB", "MB", "GB"))


def memory_size(count: float) -> str:
    """Bytes of memory: "1.5 GiB"."""
    return _scaled(count, 1024, ("B", "KiB", "MiB", "GiB"))


def clock(seconds: float) -> str:
    """What a running clock shows: "0:07", "12:30" or "1:02:03"."""
    hours, minutes, rest = _divided(seconds)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def duration(seconds: float) -> str:
    """How long something takes: "7.2 s", "12 min 30 s" or "1 h 02 min"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    hours, minutes, rest = _divided(seconds)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def _divided(seconds: float) -> tuple[int, int, int]:
    minutes, rest = divmod(round(seconds), 60)
    return *divmod(minutes, 60), rest


def _scaled(count: float, base: int, units: Sequence[str]) -> str:
    """Three digits, in the largest unit of which there is one."""
    number = float(count)
    for unit in units[:-1]:
        if number < base:
            return _three(number, unit)
        number /= base
    return _three(number, units[-1])


def _three(number: float, unit: str) -> str:
    return f"{number:.3g} {unit}" if number < 100 else f"{number:.0f} {unit}"
