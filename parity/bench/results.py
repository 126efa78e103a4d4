"""What a benchmark measured, as data, and the statistics that are made of it. No arrays, no torch."""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ltxrt.engines.storage.files import atomic_write

SCHEMA = 1
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


@dataclass(frozen=True)
class Measurement:
    """One piece of work by every contender. unit: "s", "bytes" or "GFLOP/s".

    size: what grows from one measurement of a section to the next (tokens), if anything does; operations:
    multiply-adds of the matrix part.
    """

    name: str
    unit: str
    samples: tuple[Samples, ...]
    size: int | None = None
    operations: int | None = None

    def of(self, contender: str) -> Samples | None:
        """The contender's samples, None where it has no values."""
        return next((s for s in self.samples if s.contender == contender and s.values), None)


@dataclass(frozen=True)
class Profile:
    """Where one step of ours went: seconds by operator type, the mean of a few steps."""

    name: str
    size: int
    steps: int
    operators: dict[str, float]
    matrix_seconds: float
    operations: int


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
    sections: tuple[Section, ...] = field(default=())

    def section(self, name: str) -> Section | None:
        return next((s for s in self.sections if s.name == name), None)


@dataclass(frozen=True)
class Spread:
    """The middle of some samples, and how far they lie apart."""

    median: float
    lowest: float
    highest: float


def spread(values: Sequence[float]) -> Spread:
    """Of at least one value."""
    return Spread(statistics.median(values), min(values), max(values))


def ratio(ours: Samples, theirs: Samples) -> Spread:
    """How many times ours theirs is: the medians' ratio, with the ratios turn by turn as its spread.

    Both of a turn ran one right after the other, so that a slow minute of the machine is in both.
    """
    turns = [b / a for a, b in zip(ours.values, theirs.values)]
    middle = statistics.median(theirs.values) / statistics.median(ours.values)
    return Spread(middle, min(turns), max(turns))


def interleaved(contenders: Sequence[str], repeats: int) -> Iterator[str]:
    """Whose turn it is: A B A B …, so that what changes on the machine meets all alike."""
    for _ in range(repeats):
        yield from contenders


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float | None:
    """The p of value ~ size^p, by least squares of the logarithms; None for fewer than two sizes."""
    if len(set(sizes)) < 2:
        return None
    return statistics.linear_regression([math.log(s) for s in sizes], [math.log(v) for v in values]).slope


def stage_shares(samples: Samples) -> dict[str, float]:
    """Median seconds of each stage, in the order in which they ran."""
    names = dict.fromkeys(name for one in samples.stages for name in one)
    return {n: statistics.median([one.get(n, 0.0) for one in samples.stages]) for n in names}


def write(result: Result, path: Path) -> None:
    """All raw samples, as JSON."""
    with atomic_write(path) as temporary:
        text = json.dumps(dataclasses.asdict(result), indent=1, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")
