"""What a parity check found, as data: the report's JSON, and what its page is made from."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field, replace
from pathlib import Path

from ltxrt.engines import verification
from ltxrt.engines.errors import BundleError
from ltxrt.engines.parsing import json_input
from ltxrt.engines.parsing.schema import from_json
from ltxrt.engines.storage.files import atomic_write

SCHEMA = 1
PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"


@dataclass(frozen=True)
class Metrics:
    """How far a call's output is from the reference's.

    relative_l2: |ours - theirs| / |theirs|; cosine: of the flattened outputs; psnr, snr in decibels, None
    where the two are equal; largest: the largest absolute difference, as a share of the reference's
    deviation.
    """

    relative_l2: float
    cosine: float
    psnr: float | None
    snr: float | None
    largest: float


@dataclass(frozen=True)
class Call:
    """One call of a component, with inputs that a sampling run made.

    case: which run, as "t2v, batch 3"; size: HxWxF in pixels; step counts from 1 and timestep is in 0..1,
    both None for components that are called once; by_token: relative error along the tokens (or latent
    frames), in at most 64 equal pieces; problems: why it failed, one sentence each.
    """

    case: str
    size: str
    batch: int
    step: int | None
    timestep: float | None
    metrics: Metrics | None
    by_token: tuple[float, ...] = ()
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Tolerance:
    """What a component in a precision may be off by; reason: why so much."""

    relative_l2: float
    cosine: float
    psnr: float
    reason: str


@dataclass(frozen=True)
class Check:
    """An output of a component in a precision on a backend, verified against a reference.

    problems: why it failed or was skipped; output: its name where the component has several, else "".
    """

    component: str
    precision: str
    backend: str
    reference: str
    status: str = SKIPPED
    tolerance: Tolerance | None = None
    calls: tuple[Call, ...] = ()
    problems: tuple[str, ...] = ()
    seconds: float = 0.0
    output: str = ""

    @property
    def title(self) -> str:
        """The component, with its output where there are several."""
        return f"{self.component}: {self.output}" if self.output else self.component


@dataclass(frozen=True)
class EndToEnd:
    """The whole sampler on engines beside the whole sampler on the reference, from the same noise.

    cosine_by_step: of the latents after each step; psnr (None where equal) and ssim of the frames; strip and
    video: names of files beside the report.
    """

    precision: str
    backend: str
    reference: str
    status: str = SKIPPED
    cosine_by_step: tuple[float, ...] = ()
    psnr: float | None = None
    ssim: float = 0.0
    strip: str = ""
    video: str = ""
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Culprit:
    """Where the error of a component first exceeds the tolerance.

    block: "transformer_blocks.3", or "" outside of blocks; operator: the graph's operator and tensor;
    relative_l2: the error there; band: what is allowed.
    """

    component: str
    precision: str
    block: str
    operator: str
    relative_l2: float
    band: float


@dataclass(frozen=True)
class Report:
    """Everything that `ltx-parity check` did to a bundle.

    unmet: what an option asked for and did not run, a sentence each.
    """

    schema: int
    status: str
    bundle: str
    version: str
    created: str
    environment: dict[str, str]
    graphs: dict[str, str]
    checks: tuple[Check, ...]
    end_to_end: tuple[EndToEnd, ...] = ()
    culprits: tuple[Culprit, ...] = field(default=())
    unmet: tuple[str, ...] = ()


def write(report: Report, path: Path) -> None:
    """Write the report as JSON; NaN and infinities are refused, they are no JSON."""
    data = dataclasses.asdict(report)
    data["checks"] = [{key: c[key] for key in c if c[key] or key != "output"} for c in data["checks"]]
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(data, indent=1, allow_nan=False), encoding="utf-8")


def read(path: Path) -> Report:
    """A report that `write` wrote, of this release or an earlier one. Raises BundleError where it is none."""
    try:
        data = json_input.read(path, verification.LIMIT)
        if isinstance(data, dict):
            data.setdefault("unmet", [])
            rows = data.get("checks")
            for row in rows if isinstance(rows, list) else []:
                if isinstance(row, dict):
                    row.setdefault("output", "")
        report = from_json(Report, data, path.name)
    except (OSError, ValueError) as error:
        raise BundleError(f"{path}: is no parity report ({error}); run ltx-parity check") from error
    if report.schema != SCHEMA:
        raise BundleError(f"{path}: was made by another ltxrt (schema {report.schema}); run ltx-parity check")
    return report


def status(checks: tuple[Check, ...]) -> str:
    """Failed if one failed; passed if every component passed somewhere; else nothing is known: skipped."""
    if any(check.status == FAILED for check in checks):
        return FAILED
    passed = {check.component for check in checks if check.status == PASSED}
    return PASSED if checks and passed == {check.component for check in checks} else SKIPPED


def with_unmet(report: Report, unmet: tuple[str, ...]) -> Report:
    """The report with more that was asked for and did not run: it failed if there is any."""
    return replace(report, status=FAILED, unmet=(*report.unmet, *unmet)) if unmet else report


def merged(before: Report, report: Report) -> Report:
    """`report`, with the rows of an earlier one that it does not repeat and whose graphs are the same."""
    mine = {(c.component, c.precision, c.backend) for c in report.checks}
    kept = tuple(
        c
        for c in before.checks
        if (c.component, c.precision, c.backend) not in mine
        and before.graphs.get(f"{c.component}.{c.precision}", "-")
        == report.graphs.get(f"{c.component}.{c.precision}")
    )
    if not kept:
        return report
    checks = (*report.checks, *kept)
    ends = (
        before.end_to_end if before.graphs == report.graphs and not report.end_to_end else report.end_to_end
    )
    note = {"rows kept": f"{len(kept)} of the check of {before.created}"}
    return replace(
        report,
        status=FAILED if report.unmet or any(run.status == FAILED for run in ends) else status(checks),
        checks=checks,
        end_to_end=ends,
        environment={**report.environment, **note},
    )
