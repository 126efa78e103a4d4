"""The README's table of measured figures, made of docs/benchmarks.json, which `ltx-parity bench` writes.

    python .ci/figures.py           write the table into README.md
    python .ci/figures.py --check   fail where the README has another one, as `make lint` does

Standard library only.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
README, MEASURED = ROOT / "README.md", ROOT / "docs" / "benchmarks.json"
BEGIN, END = "<!-- figures: from docs/benchmarks.json, by .ci/figures.py -->", "<!-- /figures -->"
# A section, the beginning of a measurement's name, and what the README calls it.
ROWS = (
    ("transformer", "1024 tokens", "transformer step, 1024 tokens, {layers} layers of the 2B model's width"),
    ("transformer", "4096 tokens", "transformer step, 4096 tokens"),
    ("components", "VAE decoder", "decoding {name}"),
    ("videos", "t2v, medium", "whole video, {name}"),
    (
        "cold-start",
        "first transformer call",
        "cold start, to the end of the first transformer call",
    ),
    ("memory", "t2v, medium", "peak memory of a process that makes that video"),
)
OURS, THEIRS = "ltxrt onnxruntime", "diffusers eager"


def measurement(result: dict[str, Any], section: str, name: str) -> dict[str, Any]:
    """The one of the section whose name begins so."""
    rows = next(found["measurements"] for found in result["sections"] if found["name"] == section)
    return next(row for row in rows if row["name"].startswith(name))


def value(seconds_or_bytes: float, unit: str) -> str:
    if unit == "bytes":
        return f"{seconds_or_bytes / 1e6:.0f} MB"
    return f"{seconds_or_bytes:.3g} s" if seconds_or_bytes >= 1 else f"{1e3 * seconds_or_bytes:.0f} ms"


def times(ratio: float) -> str:
    return f"{ratio:.0f}×" if ratio >= 10 else f"{ratio:.1f}×"


def table(result: dict[str, Any]) -> str:
    """The figures in Markdown, with the machine and the way to the whole page."""
    layers = re.search(r"--layers (\d+)", result["command"])
    words = {"layers": layers[1] if layers else "?"}
    lines = ["| fp32, medians | ltxrt | diffusers | |", "|---|--:|--:|--:|"]
    for section, name, text in ROWS:
        row = measurement(result, section, name)
        samples = {one["contender"]: one["values"] for one in row["samples"] if one["values"]}
        ours, theirs = (statistics.median(samples[who]) for who in (OURS, THEIRS))
        label = text.format(**words, name=row["name"].removeprefix("VAE decoder, ").removeprefix("t2v, "))
        cells = (label, value(ours, row["unit"]), value(theirs, row["unit"]), times(theirs / ours))
        lines.append(f"| {' | '.join(cells)} |")
    machine, versions = result["machine"], result["versions"]
    lines += [
        "",
        f"{machine['CPU']}, {machine['cores']} cores, {result['created'].split()[0]}. ltxrt on ONNX Runtime "
        f"{versions['onnxruntime']}; diffusers {versions['diffusers']} on",
        f"torch {versions['torch']}, not compiled. Random weights; the videos' model is a small one.",
        "[How it was measured, spreads, and with torch.compile](docs/benchmarks.md)",
    ]
    return "\n".join(lines)


def updated(readme: str, result: dict[str, Any]) -> str:
    """The README with the table between its marks."""
    before, _, rest = readme.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise SystemExit(f"README.md has no table between {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{table(result)}\n\n{END}{after}"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="fail where the README has another table")
    check = parser.parse_args().check
    readme = README.read_text(encoding="utf-8")
    wanted = updated(readme, json.loads(MEASURED.read_text(encoding="utf-8")))
    if check and wanted != readme:
        sys.stderr.write(
            "README.md: other figures than docs/benchmarks.json has; run: python .ci/figures.py\n"
        )
        return 1
    README.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
