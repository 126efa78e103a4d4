"""Whether a bundle's graphs were held against torch: its parity report, as far as a runtime needs it.

The report is written by `ltx-parity check`. It is untrusted: one that cannot be read proves nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from ltxrt.engines.bundle import Bundle, Graph
from ltxrt.engines.files import read_small

REPORT = Path("parity") / "report.json"
LIMIT = 64 << 20  # bytes of a report that are read


def identity(graph: Graph) -> str:
    """A hash of a graph and its weights, from the manifest."""
    return hashlib.sha256("".join((graph.file.sha256, *(d.sha256 for d in graph.data))).encode()).hexdigest()


def unproved(bundle: Bundle, backend: str, precisions: Mapping[str, str]) -> list[str]:
    """Those components of `precisions` whose graph has no passing check on `backend` in the report."""
    graphs, passed = _read(bundle.root / REPORT)
    return [
        component
        for component, precision in precisions.items()
        if (component, precision, backend) not in passed
        or graphs.get(f"{component}.{precision}") != identity(bundle.components[component][precision])
    ]


def _read(path: Path) -> tuple[dict[str, str], set[tuple[str, str, str]]]:
    """Hashes of the graphs that were compared, and component, precision and backend of what passed."""
    try:
        data = json.loads(read_small(path, LIMIT))
        checks = {
            (str(c["component"]), str(c["precision"]), str(c["backend"]), c["status"]) for c in data["checks"]
        }
        return dict(data["graphs"]), {check[:3] for check in checks if check[3] == "passed"}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}, set()
