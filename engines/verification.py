"""Whether a bundle's graphs were verified against torch, according to its parity report.

The report is written by `ltx-parity check`. It is untrusted: an unreadable one counts as no report.
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
LIMIT = 16 << 20  # bytes of a report; that of a full check of five precisions has under one million


def identity(graph: Graph) -> str:
    """A hash of a graph and its weights, from the manifest."""
    return hashlib.sha256("".join((graph.file.sha256, *(d.sha256 for d in graph.data))).encode()).hexdigest()


@dataclass(frozen=True)
class Report:
    """A report: hashes of the graphs that were compared, and component, precision and backend of the checks
    that passed."""

    graphs: Mapping[str, str]
    passed: frozenset[tuple[str, str, str]]


def read(bundle: Bundle) -> Report:
    """The bundle's report; empty if it is missing or unreadable."""
    try:
        data = json_input.parse(read_small(bundle.root / REPORT, LIMIT))
        checks = {
            (str(c["component"]), str(c["precision"]), str(c["backend"]), c["status"]) for c in data["checks"]
        }
        failed = {check[:3] for check in checks if check[3] != "passed"}  # one of several outputs is enough
        passed = frozenset(check[:3] for check in checks) - failed
        return Report(dict(data["graphs"]), passed)
    except (OSError, ValueError, KeyError, TypeError):
        return Report({}, frozenset())


def unproved(
    bundle: Bundle, backend: str, precisions: Mapping[str, str], report: Report | None = None
) -> list[str]:
    """Those components of `precisions` whose graph has no passing check on `backend` in the report.

    `report` is the result of an earlier `read`, which a caller that works for minutes calls first.
    """
    found = read(bundle) if report is None else report
    return [
        component
        for component, precision in precisions.items()
        if (component, precision, backend) not in found.passed
        or found.graphs.get(f"{component}.{precision}") != identity(bundle.components[component][precision])
    ]
