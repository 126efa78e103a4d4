"""`ltx-parity check`: every component, precision and backend of a bundle against torch; a report of it."""

from __future__ import annotations

import dataclasses
import datetime
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ltxrt.engines import host, verification
from ltxrt.engines.backend import Session, preferred
from ltxrt.engines.bundle import Bundle
from ltxrt.engines.contract import Tensor
from ltxrt.engines.errors import InputError, LtxrtError, setting
from ltxrt.engines.progress import Progress, unreported
from ltxrt.engines.progress import Report as ProgressReport
from ltxrt.engines.storage.files import atomic_write
from ltxrt.export import components
from ltxrt.export.checkpoint.part import Checkpoint
from ltxrt.parity import families
from ltxrt.parity.check import backends, compare, demands, emulation, inputs, reference, results
from ltxrt.parity.check.compare import Ran, SessionRunner
from ltxrt.parity.check.inputs import Feed
from ltxrt.parity.check.results import FAILED, PASSED, SCHEMA, Call, Check, Report, Tolerance
from ltxrt.parity.check.tolerances import tolerance
from ltxrt.parity.families import Family

PACKAGES = (
    "ltxrt", "torch", "diffusers", "transformers", "polygraphy", "onnxruntime", "onnxruntime-gpu", "tensorrt",
    "tensorrt-rtx", "numpy",
)  # fmt: skip

Tell = Callable[[str], None]
_CALLS = 10
_BYTES_PER_SECOND = 1e9


@dataclass(frozen=True)
class Order:
    """What to compare: which components, precisions and backends (empty: all; also by their aliases), with
    which reference.

    progress: told each of `stages` when it begins, and how much of it is done.
    """

    bundle: Bundle
    checkpoint: Checkpoint
    plan: inputs.Plan
    reference: str = reference.TORCH
    components: tuple[str, ...] = ()
    precisions: tuple[str, ...] = ()
    backends: tuple[str, ...] = ()
    threads: int | None = None
    save: Path | None = None
    progress: ProgressReport = unreported

    def __post_init__(self) -> None:
        object.__setattr__(self, "backends", tuple(dict.fromkeys(map(backends.named, self.backends))))

    @property
    def family(self) -> Family:
        """How engines of this model are verified."""
        return families.family(self.bundle.family)

    @property
    def stages(self) -> dict[str, float]:
        """What `run` reports, in order, with about how many seconds each stage takes.

        A call reads the weights once; the sampler makes about ten of each component.
        """
        names = self.components or tuple(self.bundle.components)
        found = {self.inputs_stage: sum(_CALLS * self._seconds(name) for name in names)}
        for name in names:
            found[stage(name, self.reference)] = _CALLS * self._seconds(name)
            for precision in self.bundle.components.get(name, {}):
                if not self.precisions or precision in self.precisions:
                    for backend in backends.tried(self.backends, precision):
                        if backends.unavailable(self.bundle, name, precision, backend) is None:
                            found[stage(name, backend, precision)] = _CALLS * self._seconds(name)
        return found

    @property
    def inputs_stage(self) -> str:
        """The first stage."""
        return f"making inputs on {self.reference}"

    def _seconds(self, component: str) -> float:
        graph = next(iter(self.bundle.components.get(component, {}).values()), None)
        size = sum(file.bytes for file in graph.data) if graph is not None else 0
        return 0.05 + size / _BYTES_PER_SECOND

    def sampling(self, stage: str) -> inputs.Plan:
        """The plan, whose progress is reported as that of `stage`, which begins."""
        self.progress(Progress(stage))
        return dataclasses.replace(
            self.plan, progress=lambda one: self.progress(dataclasses.replace(one, stage=stage))
        )

    def session(self, component: str) -> Session:
        """A component on the reference, loaded."""
        return reference.session(self.bundle, self.checkpoint, component, self.reference)


def stage(component: str, backend: str, precision: str = "") -> str:
    """The name of the stage in which a component is called."""
    return f"{component} {precision} on {backend}".replace("  ", " ")


def run(order: Order, tell: Tell) -> tuple[Report, list[Feed]]:
    """Compare everything that was ordered: the report, and the inputs that it is of.

    Raises InputError for what cannot be compared, before any work.
    """
    names = _components(order)
    _check_demands(order, names)
    left = [name for name in order.bundle.components if not order.components and name not in names]
    if left:
        tell(f"not compared: {', '.join(left)}, which {order.reference} does not have")
    plan = order.sampling(order.inputs_stage)
    feeds = order.family.record(order.bundle, order.session, plan, order.reference)
    checks: list[Check] = []
    for name in names:
        checks += _component(order, name, [feed for feed in feeds if feed.component == name], tell)
    unmet = demands.of_checks(order.components, order.precisions, order.backends, checks)
    return results.with_unmet(assemble(order.bundle, tuple(checks)), unmet), feeds


def assemble(bundle: Bundle, checks: tuple[Check, ...]) -> Report:
    """A report of `checks`; its status is what `status` says."""
    graphs = {
        f"{name}.{precision}": verification.identity(graph)
        for name, precisions in bundle.components.items()
        for precision, graph in precisions.items()
    }
    return Report(
        schema=SCHEMA,
        status=results.status(checks),
        bundle=bundle.root.resolve().name,
        version=bundle.version,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        environment=_environment(),
        graphs=graphs,
        checks=checks,
    )


def _components(order: Order) -> tuple[str, ...]:
    """The components to compare, all of which are in the bundle, the checkpoint and the reference."""
    family = order.family
    if order.reference not in reference.names(family):
        known = ", ".join(reference.names(family))
        raise InputError(f"{setting('reference')} {order.reference!r:.60}: must be one of {known}")
    for name in order.components:
        order.bundle.precision(name, prefer=tuple(order.bundle.components.get(name, ())))
    names = order.components or tuple(order.bundle.components)
    lacking = [name for name in names if not reference.has(family, order.reference, name)]
    if lacking and order.components:
        raise InputError(
            f"{setting('reference')} {order.reference} has no {lacking[0]}; compare it with "
            f"{setting('reference')} {reference.TORCH}"
        )
    names = tuple(name for name in names if name not in lacking)
    for name in sorted({*family.called(order.bundle), *names}):
        if name in order.bundle.components or name in names:
            components.part(order.checkpoint, name)
    _check_model(order)
    return names


def _check_model(order: Order) -> None:
    found, wanted = components.facts(order.checkpoint), order.bundle.facts
    for part in dataclasses.fields(wanted):
        ours, theirs = getattr(wanted, part.name), getattr(found, part.name)
        if ours is not None and theirs is not None and ours != theirs:
            raise InputError(
                f"{setting('checkpoint')} {order.checkpoint.source}: its {part.name} is not the bundle's; "
                "give the checkpoint that the bundle was exported from"
            )


def _check_demands(order: Order, names: tuple[str, ...]) -> None:
    for precision in order.precisions:
        if not any(precision in order.bundle.components[name] for name in names):
            raise InputError(
                f"{setting('precision')} {precision!r:.60}: the bundle has none of it in {', '.join(names)}"
            )
    for name in order.components:
        there = order.bundle.components[name]
        if order.precisions and not any(precision in there for precision in order.precisions):
            raise InputError(
                f"{setting('component')} {name}: the bundle has it in {', '.join(there)}, not in "
                f"{' or '.join(order.precisions)}; leave it out, or name one of its precisions too"
            )
    for backend in order.backends:
        if backend != emulation.BACKEND:
            preferred(backend)
    demands.check(order.precisions, order.backends)


def _component(order: Order, name: str, feeds: list[Feed], tell: Tell) -> list[Check]:
    """All precisions and backends of a component; the reference runs once."""
    if not feeds:
        raise InputError(f"{name}: the sampling run never called it; leave it out of {setting('component')}")
    contract = order.bundle.contract(name)
    arrays = [feed.inputs for feed in feeds]
    called = _counted(order, stage(name, order.reference), len(feeds))
    runner = SessionRunner(order.reference, contract, lambda: order.session(name), called)
    theirs = compare.run(runner, arrays)
    if order.save is not None:
        _save(order.save, name, feeds, theirs)
    precisions = [p for p in order.bundle.components[name] if not order.precisions or p in order.precisions]
    return [
        check
        for precision in precisions
        for backend in backends.tried(order.backends, precision)
        for check in _engine(order, Check(name, precision, backend, order.reference), feeds, theirs, tell)
    ]


def _engine(order: Order, base: Check, feeds: list[Feed], theirs: Ran, tell: Tell) -> list[Check]:
    """`base` with its result; a check for each output where the component has several."""
    place = base.component, base.precision, base.backend
    contract = order.bundle.contract(base.component)
    allowed = {
        tensor.name: tolerance(base.precision, order.family.TOLERANCES.get((base.component, tensor.name)))
        for tensor in contract.outputs
    }
    base = dataclasses.replace(base, tolerance=allowed[contract.outputs[0].name])
    reason = backends.unavailable(order.bundle, *place)
    if reason is not None:
        return [dataclasses.replace(base, problems=(reason,))]
    load = backends.loader(order.bundle, *place, order.threads)
    start = time.monotonic()
    called = _counted(order, stage(base.component, base.backend, base.precision), len(feeds))
    try:
        runner = SessionRunner(base.backend, contract, load, called)
        ours = compare.run(runner, [feed.inputs for feed in feeds])
    except LtxrtError as error:
        seconds = time.monotonic() - start
        found = [dataclasses.replace(base, status=FAILED, problems=(str(error),), seconds=seconds)]
    else:
        count = len(contract.outputs)
        base = dataclasses.replace(base, seconds=ours.seconds / count)
        found = [
            judge(
                dataclasses.replace(base, output=t.name * (count > 1)),
                t,
                allowed[t.name],
                feeds,
                theirs,
                ours,
            )
            for t in contract.outputs
        ]
    for check in found:
        problem = f": {check.problems[0]}" if check.problems else ""
        tell(f"{check.title} {check.precision} on {check.backend}: {check.status}{problem}")
    return found


def _counted(order: Order, stage: str, total: int) -> Callable[[int], None]:
    """Reports that a stage begins, and then its calls."""
    order.progress(Progress(stage, 0, total, "call"))
    return lambda done: order.progress(Progress(stage, done, total, "call"))


def judge(
    base: Check, tensor: Tensor, allowed: Tolerance, feeds: list[Feed], theirs: Ran, ours: Ran
) -> Check:
    """`base` with every call's output `tensor` compared: failed unless all are within what is allowed."""
    base = dataclasses.replace(base, tolerance=allowed)
    problems = compare.problems_of(theirs.outputs, ours.outputs)
    if problems:
        return dataclasses.replace(base, status=FAILED, problems=tuple(problems))
    calls = tuple(
        _call(feed, tensor, allowed, before, after)
        for feed, before, after in zip(feeds, theirs.outputs, ours.outputs, strict=True)
    )
    failed = [call for call in calls if call.problems]
    if not failed:
        return dataclasses.replace(base, status=PASSED, calls=calls)
    first = failed[0]
    where = f"{first.case}" + (f", step {first.step}" if first.step else "")
    problem = f"{len(failed)} of {len(calls)} calls failed, first {where}: {first.problems[0]}"
    return dataclasses.replace(base, status=FAILED, calls=calls, problems=(problem,))


def _call(
    feed: Feed, tensor: Tensor, allowed: Tolerance, theirs: compare.Outputs, ours: compare.Outputs
) -> Call:
    metrics, wrong = compare.compare(tensor.name, theirs, ours, allowed)
    # Tokens, or latent frames: the first axis but the batch's whose size varies.
    axis = next((i for i, size in enumerate(tensor.shape) if i > 0 and isinstance(size, str)), None)
    pieces: tuple[float, ...] = ()
    if metrics is not None and axis is not None:
        pieces = compare.by_token(theirs[tensor.name], ours[tensor.name], axis)
    return Call(feed.case, feed.size, feed.batch, feed.step, feed.timestep, metrics, pieces, tuple(wrong))


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
