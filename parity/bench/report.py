"""What a benchmark measured, as data, which JSON holds, and its statistics."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ltxrt.engines.errors import BundleError, InputError
from ltxrt.engines.parsing import json_input
from ltxrt.engines.parsing.schema import from_json

SCHEMA = 1
LIMIT = 16 << 20  # bytes of a result
REFERENCE = "diffusers eager"
OURS = "ltxrt onnxruntime"


@dataclass(frozen=True)
class Samples:
    """A contender's measurements of one piece of work, in the order in which they were made.

    skipped: why there are none; difference: relative L2 distance of its output from the reference's, None
    where there is nothing to compare; stages: seconds by stage of each repetition, where work has stages.
    """

    contender: str
    values: tuple[float, ...] = ()
    skipped: str = ""
    difference: float | None = None
    stages: tuple[dict[str, float], ...] = ()

    @property
    def median(self) -> float:
        return statistics.median(self.values)


@dataclass(frozen=True)
class Measurement:
    """One piece of work by every contender. unit: "s", "bytes" or "GFLOP/s".

    size: what grows from one measurement of a section to the next (tokens), if anything does; operations:
    multiply-adds of the matrix products.
    """

    name: str
    unit: str
    samples: tuple[Samples, ...]
    size: int | None = None
    operations: int | None = None

    def of(self, contender: str) -> Samples | None:
        """The contender's samples, None where it has no values."""
        return next((s for s in self.measured() if s.contender == contender), None)

    def measured(self) -> list[Samples]:
        """The samples of the contenders that have values."""
        return [s for s in self.samples if s.values]


@dataclass(frozen=True)
class Profile:
    """Where one step of ltxrt spends its time: seconds by operator type, the mean of a few steps."""

    name: str
    size: int
    steps: int
    operators: dict[str, float]
    matrix_seconds: float
    operations: int

    @property
    def rate(self) -> float:
        """GFLOP/s of the matrix products."""
        return 2e-9 * self.operations / self.matrix_seconds if self.matrix_seconds else 0.0


@dataclass(frozen=True)
class Section:
    """Measurements that belong together; about: how they were made, in a few sentences.

    others: how many cores other processes of the machine took meanwhile, on average; None where unknown.
    """

    name: str
    title: str
    about: str
    measurements: tuple[Measurement, ...]
    profiles: tuple[Profile, ...] = ()
    others: float | None = None

    def rows(self, unit: str) -> list[Measurement]:
        """The measurements in that unit."""
        return [row for row in self.measurements if row.unit == unit]


@dataclass(frozen=True)
class Result:
    """Everything that one run of the benchmark found."""

    schema: int
    command: str
    created: str
    machine: dict[str, str]
    versions: dict[str, str]
    settings: dict[str, str]
    sections: tuple[Section, ...] = ()

    def rows(self, section: str) -> tuple[Measurement, ...]:
        """The measurements of a section, none where it was not run."""
        return next((s.measurements for s in self.sections if s.name == section), ())

    @property
    def peak(self) -> float:
        """GFLOP/s of the best single matrix product, 0 where none was measured."""
        rows = [row for section in self.sections for row in section.rows("GFLOP/s")]
        return max((value for row in rows for one in row.samples for value in one.values), default=0.0)


class Spread(NamedTuple):
    """The middle of some samples, and how far they lie apart."""

    median: float
    lowest: float
    highest: float

    def times(self) -> str:
        return f"{self.median:.2f} × ({self.lowest:.2f}–{self.highest:.2f})"


def spread(values: Sequence[float]) -> Spread:
    """Of at least one value."""
    return Spread(statistics.median(values), min(values), max(values))


def ratio(ours: Samples, theirs: Samples) -> Spread:
    """How many times ours theirs is: the medians' ratio, with the ratios turn by turn as its spread.

    Both of a turn ran one right after the other, so that a slow minute of the machine is in both.
    """
    turns = [b / a for a, b in zip(ours.values, theirs.values)]
    return Spread(theirs.median / ours.median, min(turns), max(turns))


def exponent(points: Sequence[tuple[float, float]]) -> float | None:
    """The p of value ~ size^p for (size, value), by least squares of the logarithms; None for one size."""
    if len({size for size, _ in points}) < 2:
        return None
    logs = [(math.log(size), math.log(value)) for size, value in points]
    return statistics.linear_regression(*zip(*logs)).slope


def stage_medians(samples: Samples) -> dict[str, float]:
    """Median seconds of each stage, in the order in which they ran."""
    names = dict.fromkeys(name for one in samples.stages for name in one)
    return {n: statistics.median([one.get(n, 0.0) for one in samples.stages]) for n in names}


def present(rows: Sequence[Measurement]) -> list[str]:
    """The contenders that have values somewhere."""
    return list(dict.fromkeys(s.contender for row in rows for s in row.measured()))


def unit_scale(unit: str) -> tuple[float, str]:
    """What to multiply by, and the unit's name then."""
    return (1e-6, "MB") if unit == "bytes" else (1.0, unit)


def number(value: float) -> str:
    """Three digits, and never a power of ten for what is large."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def medians(rows: Sequence[Measurement]) -> dict[str, list[tuple[float, float]]]:
    """By contender: (size, median) of the rows that have a size."""
    sized = [row for row in rows if row.size]
    return {
        name: [(row.size or 0, found.median) for row in sized if (found := row.of(name))]
        for name in present(sized)
    }


def compared(row: Measurement) -> Spread | None:
    """How many times as fast (or as small) as the reference ours is."""
    ours, theirs = row.of(OURS), row.of(REFERENCE)
    return ratio(ours, theirs) if ours and theirs else None


def read(path: Path) -> Result:
    """A result that an earlier run wrote as JSON. Raises InputError where it is none."""
    try:
        found = from_json(Result, json_input.read(path, LIMIT), path.name)
    except (OSError, ValueError, BundleError) as error:
        raise InputError(f"{path}: is no result of ltx-parity bench ({error})") from error
    if found.schema != SCHEMA:
        raise InputError(f"{path}: was made by another ltxrt (schema {found.schema}); measure again")
    return found
