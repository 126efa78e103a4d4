"""What an option of `ltx-parity check` asked for and what did not run all the same: that is no pass.

A row that nobody named may be skipped, with its reason; a named component, precision or backend has to run.
Pairs that exclude each other (fp32 and the backend that emulates 16-bit types) are no demand, as long as
each half ran beside another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from ltxrt.engines.errors import InputError, setting
from ltxrt.engines.precision import PRECISIONS
from ltxrt.parity.check.backends import every, runs
from ltxrt.parity.check.results import SKIPPED, Check, EndToEnd

Row = TypeVar("Row", Check, EndToEnd)


def check(precisions: Sequence[str], backends: Sequence[str]) -> None:
    """Refuse a named precision that no named backend runs, or the other way round, on whatever machine."""
    if not (precisions and backends):
        return
    for precision in precisions:
        if not any(runs(backend, precision) for backend in backends):
            raise InputError(
                f"{setting('precision')} {precision}: not run by {' or '.join(backends)}; name a "
                f"{setting('backend')} that does: "
                f"{', '.join(b for b in every() if runs(b, precision))}"
            )
    for backend in backends:
        if not any(runs(backend, precision) for precision in precisions):
            raise InputError(
                f"{setting('backend')} {backend}: runs none of {', '.join(precisions)}; leave it out, or "
                f"name one of {', '.join(p for p in PRECISIONS if runs(backend, p))} with "
                f"{setting('precision')}"
            )


def of_checks(
    components: Sequence[str], precisions: Sequence[str], backends: Sequence[str], rows: Iterable[Check]
) -> tuple[str, ...]:
    """A sentence for each thing among the named components, precisions and backends that did not run."""
    found: list[str] = []
    by_component: dict[str, list[Check]] = {}
    rows = tuple(rows)
    for row in rows:
        by_component.setdefault(row.component, []).append(row)
    for component, mine in by_component.items():
        there = tuple(p for p in precisions if any(row.precision == p for row in mine))
        named = bool(components or precisions or backends)
        found += _missing(component, there, backends, mine, named)
    return (*found, *_idle("", backends, rows))


def of_end_to_end(
    precisions: Sequence[str], backends: Sequence[str], rows: Sequence[EndToEnd]
) -> tuple[str, ...]:
    """The same for runs of the whole sampler, of which one at least was asked for."""
    absent = [p for p in precisions if not any(row.precision == p for row in rows)]
    none = [f"end to end {p}: no component that it runs is in the bundle in {p}" for p in absent]
    there = tuple(p for p in precisions if p not in absent)
    found = _missing("end to end", there, backends, rows, True)
    return (*none, *found, *_idle("end to end ", backends, rows))


def _missing(
    what: str, precisions: Sequence[str], backends: Sequence[str], rows: Sequence[Row], named: bool
) -> list[str]:
    """Sentences on demands that no row of `rows` met by running."""
    told: list[Row] = []
    sentences: list[str] = []

    def demand(precision: str | None, backend: str | None, counts: Callable[[Row], bool]) -> None:
        mine = [r for r in rows if precision in (None, r.precision) and backend in (None, r.backend)]
        ran = any(row.status != SKIPPED for row in mine)
        first = next((row for row in mine if counts(row)), None)
        if ran or first is None or first in told:
            return
        told.extend(mine)
        place = f" {precision}" * bool(precision) + f" on {backend}" * bool(backend)
        sentences.append(f"{what}{place}: {first.problems[0] if first.problems else 'no reason was given'}")

    for precision in precisions:
        for backend in backends:
            demand(precision, backend, _possible)
    for precision in precisions:
        demand(precision, None, lambda row: True)
    for backend in backends:
        demand(None, backend, _possible)
    if named and not sentences:
        demand(None, None, lambda row: True)
    return sentences


def _idle(what: str, backends: Sequence[str], rows: Sequence[Check] | Sequence[EndToEnd]) -> list[str]:
    """Sentences on named backends that run none of the precisions there are."""
    mine = {backend: [row for row in rows if row.backend == backend] for backend in backends}
    return [
        f"{what}on {backend}: {found[0].problems[0]}"
        for backend, found in mine.items()
        if found and not any(row.status != SKIPPED or _possible(row) for row in found)
    ]


def _possible(row: Check | EndToEnd) -> bool:
    return runs(row.backend, row.precision)
