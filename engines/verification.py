"""Whether a bundle's graphs were held against torch: its parity report, as far as a runtime needs it.

The report is written by `ltx-parity check`. It is untrusted: one that cannot be read proves nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ltxrt.engines.bundle import Bundle, Graph
from ltxrt.engines.parsing import json_input
from ltxrt.engines.storage.files import read_small

REPORT = Path("parity") / "report.json"
LIMIT = 16 << 20  # bytes of a report; a full check of five precisions has under one million


def identity(graph: Graph) -> str:
    """A hash of a graph and its weights, from the manifest."""
    return hashlib.sha256("".join((graph.file.sha256, *(d.sha256 for d in graph.data))).encode()).hexdigest()


@dataclass(frozen=True)
class Report:
    """What a report says: hashes of the graphs that were compared, and component, precision and backend of
    the checks that passed."""

    graphs: Mapping[str, str]
    passed: frozenset[tuple[str, str, str]]


def read(bundle: Bundle) -> Report:
    """The bundle's report; one that is missing or cannot be read says nothing."""
    try:
        data = json_input.parse(read_small(bundle.root / REPORT, LIMIT))
        checks = {
            (str(c["component"]), str(c["precision"]), str(c["backend"]), c["status"]) for c in data["checks"]
        }
        return Report(dict(data["graphs"]), frozenset(check[:3] for check in checks if check[3] == "passed"))
    except (OSError, ValueError, KeyError, TypeError):
        return Report({}, frozenset())


def unproved(
    bundle: Bundle, backend: str, precisions: Mapping[str, str], report: Report | None = None
) -> list[str]:
    """Those components of `precisions` whose graph has no passing check on `backend` in the report.

    `report` is what `read` gave before: whoever works for minutes reads it first.
    """
    found = read(bundle) if report is None else report
    return [
        component
        for component, precision in precisions.items()
        if (component, precision, backend) not in found.passed
        or found.graphs.get(f"{component}.{precision}") != identity(bundle.components[component][precision])
    ]
