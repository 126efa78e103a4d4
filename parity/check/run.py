"""`ltx-parity check`: every component, precision and backend of a bundle against torch; a report of it."""

from __future__ import annotations

import datetime
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from ltxrt.engines import host, verification
from ltxrt.engines.backend import BACKENDS, Session, load_engine, preferred, why_not
from ltxrt.engines.bundle import Bundle
from ltxrt.engines.errors import InputError, LtxrtError
from ltxrt.engines.storage import integrity
from ltxrt.engines.storage.files import atomic_write
from ltxrt.export import components
from ltxrt.export.ltxv.open import Checkpoint
from ltxrt.parity.check import asked, compare, emulation, inputs
from ltxrt.parity.check.compare import Ran, SessionRunner
from ltxrt.parity.check.inputs import Feed
from ltxrt.parity.check.results import FAILED, PASSED, SCHEMA, SKIPPED, Call, Check, Report
from ltxrt.parity.check.tolerances import tolerance
from ltxrt.parity.reference import torch as reference

PACKAGES = (
    "ltxrt", "torch", "diffusers", "transformers", "polygraphy", "onnxruntime", "onnxruntime-gpu", "tensorrt",
    "tensorrt-rtx", "numpy",
)  # fmt: skip
TOKEN_AXIS = {"transformer": 1, "text_encoder": 1}  # elsewhere the frames', 2

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Order:
    """What to compare: which components, precisions and backends (empty: all), with which reference."""

    bundle: Bundle
    checkpoint: Checkpoint
    plan: inputs.Plan
    reference: str = "torch"
    components: tuple[str, ...] = ()
    precisions: tuple[str, ...] = ()
    backends: tuple[str, ...] = ()
    threads: int | None = None
    save: Path | None = None


def run(order: Order, tell: Tell) -> tuple[Report, list[Feed]]:
    """Compare everything that was ordered: the report, and the inputs that it is of.

    Raises InputError for what cannot be compared, before any work.
    """
    names = _components(order)
    _same_model(order)
    for precision in order.precisions:
        if not any(precision in order.bundle.components[name] for name in names):
            raise InputError(f"--precision {precision!r}: the bundle has none of it in {', '.join(names)}")
    for name in order.components:
        there = order.bundle.components[name]
        if order.precisions and not any(precision in there for precision in order.precisions):
            raise InputError(
                f"--component {name}: the bundle has it in {', '.join(there)}, not in "
                f"{' or '.join(order.precisions)}; leave it out, or name one of its precisions too"
            )
    for backend in order.backends:
        if backend != emulation.BACKEND:
            preferred(backend)
    asked.check(order.precisions, order.backends)
    left = [name for name in order.bundle.components if not order.components and name not in names]
    if left:
        tell(f"not compared: {', '.join(left)}, which diffusers does not have; use --reference torch for it")
    tell("sampling on the reference, to have its inputs")
    feeds = inputs.record(order.bundle, loader(order), order.plan, order.reference == "torch")
    checks: list[Check] = []
    for name in names:
        checks += _component(order, name, inputs.of(feeds, name), tell)
    unmet = asked.of_checks(order.components, order.precisions, order.backends, checks)
    return with_unmet(assemble(order.bundle, tuple(checks)), unmet), feeds


def assemble(bundle: Bundle, checks: tuple[Check, ...]) -> Report:
    """A report of `checks`; its status is what `status` says."""
    graphs = {
        f"{name}.{precision}": verification.identity(graph)
        for name, precisions in bundle.components.items()
        for precision, graph in precisions.items()
    }
    return Report(
        schema=SCHEMA,
        status=status(checks),
        bundle=bundle.root.resolve().name,
        version=bundle.version,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        environment=_environment(),
        graphs=graphs,
        checks=checks,
    )


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


def status(checks: tuple[Check, ...]) -> str:
    """Failed if one failed; passed if every component passed somewhere; else nothing is known: skipped."""
    if any(check.status == FAILED for check in checks):
        return FAILED
    passed = {check.component for check in checks if check.status == PASSED}
    return PASSED if checks and passed == {check.component for check in checks} else SKIPPED


def _components(order: Order) -> tuple[str, ...]:
    for name in order.components:
        order.bundle.precision(name, prefer=tuple(order.bundle.components.get(name, ())))
    names = order.components or tuple(order.bundle.components)
    if order.reference == "diffusers":
        left = [name for name in order.components if name in inputs.UPSAMPLERS]
        if left:
            raise InputError(f"--reference diffusers has no {left[0]}; compare it with --reference torch")
        names = tuple(name for name in names if name not in inputs.UPSAMPLERS)
    needed = {"text_encoder", "transformer", "vae_encoder", "vae_decoder", *names}
    for name in sorted(needed):
        if name in order.bundle.components or name in names:
            components.part(order.checkpoint, name)
    return names


def _same_model(order: Order) -> None:
    found, wanted = components.facts(order.checkpoint), order.bundle.facts
    for name in ("transformer", "vae", "text_encoder"):
        ours, theirs = getattr(wanted, name), getattr(found, name)
        if ours is not None and theirs is not None and ours != theirs:
            raise InputError(
                f"--checkpoint {order.checkpoint.source}: its {name} is not the bundle's; give the "
                "checkpoint that the bundle was exported from"
            )


def loader(order: Order) -> Callable[[str], Session]:
    return lambda name: reference.session(order.checkpoint, name, order.reference)


def _component(order: Order, name: str, feeds: list[Feed], tell: Tell) -> list[Check]:
    """All precisions and backends of a component; the reference runs once."""
    if not feeds:
        raise InputError(f"{name}: the sampling run never called it; leave it out of --component")
    contract = order.bundle.contract(name)
    load = loader(order)
    tell(f"{name}: {len(feeds)} calls on {order.reference}")
    arrays = [feed.inputs for feed in feeds]
    theirs = compare.run(SessionRunner(order.reference, contract, lambda: load(name)), arrays)
    if order.save is not None:
        _save(order.save, name, feeds, theirs)
    precisions = [p for p in order.bundle.components[name] if not order.precisions or p in order.precisions]
    return [
        _engine(order, name, precision, backend, feeds, theirs, tell)
        for precision in precisions
        for backend in backends(order, precision)
    ]


def backends(order: Order, precision: str) -> tuple[str, ...]:
    """Where a precision is tried: what was ordered, or everything; emulation where it tells something."""
    if order.backends:
        return order.backends
    return (*BACKENDS, emulation.BACKEND) if precision in emulation.PRECISIONS else tuple(BACKENDS)


def _engine(
    order: Order, name: str, precision: str, backend: str, feeds: list[Feed], theirs: Ran, tell: Tell
) -> Check:
    def result(
        state: str, calls: tuple[Call, ...] = (), problems: tuple[str, ...] = (), seconds: float = 0.0
    ) -> Check:
        if state != SKIPPED:
            tell(f"{name} {precision} on {backend}: {state}" + (f": {problems[0]}" if problems else ""))
        allowed = tolerance(name, precision)
        return Check(name, precision, backend, order.reference, state, allowed, calls, problems, seconds)

    reason = unavailable(order.bundle, name, precision, backend)
    if reason is not None:
        return result(SKIPPED, problems=(reason,))
    contract = order.bundle.contract(name)
    load = engine_loader(order, name, precision, backend)
    start = time.monotonic()
    try:
        ours = compare.run(SessionRunner(backend, contract, load), [feed.inputs for feed in feeds])
    except LtxrtError as error:
        return result(FAILED, problems=(str(error),), seconds=time.monotonic() - start)
    calls, problems = judge(name, precision, feeds, theirs, ours)
    return result(FAILED if problems else PASSED, calls, problems, ours.seconds)


def engine_loader(order: Order, name: str, precision: str, backend: str) -> Callable[[], Session]:
    """What loads the engine, or the graph that stands in for it."""
    bundle, threads = order.bundle, order.threads
    if backend == emulation.BACKEND:
        graph, contract = bundle.components[name][precision], bundle.contract(name)

        def emulated() -> Session:
            integrity.check(bundle.root, (graph.file, *graph.data))
            return emulation.EmulatedSession(bundle.path(graph.file), contract, precision, threads)

        return emulated
    return lambda: load_engine(bundle, name, backend=backend, precision=precision, threads=threads).session


def judge(
    name: str, precision: str, feeds: list[Feed], theirs: Ran, ours: Ran
) -> tuple[tuple[Call, ...], tuple[str, ...]]:
    """Every call compared, and why the whole fails: nothing if every call is within the tolerance."""
    problems = compare.problems_of(theirs.outputs, ours.outputs)
    if problems:
        return (), tuple(problems)
    allowed = tolerance(name, precision)
    calls = []
    for feed, reference_output, output in zip(feeds, theirs.outputs, ours.outputs, strict=True):
        metrics, wrong = compare.compare(reference_output, output, allowed)
        pieces: tuple[float, ...] = ()
        worst = max(metrics, key=lambda key: metrics[key].relative_l2, default=None)
        if worst is not None:  # of several outputs a report shows the worst
            pieces = compare.by_token(reference_output[worst], output[worst], TOKEN_AXIS.get(name, 2))
        shown = metrics[worst] if worst is not None else None
        calls.append(
            Call(feed.case, feed.size, feed.batch, feed.step, feed.timestep, shown, pieces, tuple(wrong))
        )
    failed = [call for call in calls if call.problems]
    if not failed:
        return tuple(calls), ()
    first = failed[0]
    where = f"{first.case}" + (f", step {first.step}" if first.step else "")
    return tuple(calls), (f"{len(failed)} of {len(calls)} calls failed, first {where}: {first.problems[0]}",)


def unavailable(bundle: Bundle, name: str, precision: str, backend: str) -> str | None:
    """Why this backend cannot run this precision here, None if it can."""
    if backend == emulation.BACKEND:
        return None if precision in emulation.PRECISIONS else f"{precision} needs no emulation"
    return why_not(bundle, name, backend, precision)


def _save(folder: Path, name: str, feeds: list[Feed], theirs: Ran) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    places = folder / f"{name}.inputs.json", folder / f"{name}.outputs.json"
    compare.save([feed.inputs for feed in feeds], theirs, *places)
    with atomic_write(folder / f"{name}_data_loader.py") as temporary:
        temporary.write_text(LOADER.format(name=name), encoding="utf-8")


LOADER = '''"""Inputs of the {name}, as a sampling run made them, for polygraphy run --data-loader-script."""

from pathlib import Path

from polygraphy.json import load_json


def load_data():
    yield from load_json(str(Path(__file__).with_name("{name}.inputs.json")))
'''


def _environment() -> dict[str, str]:
    found = {"python": platform.python_version(), "machine": f"{platform.system()} {platform.machine()}"}
    there = {package: host.package_version(package) for package in PACKAGES}
    found.update((package, version) for package, version in there.items() if version)
    found["processor"] = host.cpu_name()
    return found
