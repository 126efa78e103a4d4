"""An explanation of a planned run: what would run, the memory that it takes, what is there, and times."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ltxrt.engines.backend import fitting, needs_gpu
from ltxrt.engines.description import memory_size
from ltxrt.engines.errors import LtxrtError, setting
from ltxrt.engines.host import cpu_name
from ltxrt.engines.machine import resources
from ltxrt.engines.storage import times
from ltxrt.runtime.engine_pool import Engines
from ltxrt.runtime.ltxv.estimate.costs import expected_seconds, timing_key
from ltxrt.runtime.ltxv.estimate.needs import Need, needs
from ltxrt.runtime.ltxv.plan import Plan


@dataclass(frozen=True)
class Stage:
    """A stage of the run: its largest call, in bytes.

    engine: the file that would be loaded, and the profile that its calls take where engines have profiles;
    problem: why it cannot run, "" if it can; seconds: by what was measured here before, at whatever size, or
    None.
    """

    name: str
    component: str
    precision: str
    engine: str
    problem: str
    calls: int
    sizes: Mapping[str, int]
    weights: int
    activations: int | None
    arrays: int
    seconds: float | None


@dataclass(frozen=True)
class Explanation:
    """A planned run.

    peak: bytes of its largest stage, engines that are kept included, where the engines run; available: bytes
    that are left there, None if unknown; where: "main memory" or the GPU; seconds: of all stages, None if one
    of them was not measured here before.
    """

    plan: Plan
    model: str
    backend: str
    place: str
    stages: tuple[Stage, ...]
    peak: int
    largest: str
    where: str
    available: int | None
    total: int | None
    seconds: float | None

    @property
    def fits(self) -> bool | None:
        """Whether the largest stage fits what is left; None if that is unknown."""
        return None if self.available is None else self.peak <= self.available

    def to_json(self) -> dict[str, Any]:
        """As JSON values: the plan's, and all of this."""
        rows = [dataclasses.asdict(stage) for stage in self.stages]
        names = ("model", "backend", "place", "peak", "largest", "where", "available", "total", "seconds")
        own = {name: getattr(self, name) for name in names}
        return {**own, "fits": self.fits, "stages": rows, "plan": self.plan.to_json()}


def explain(plan: Plan, engines: Engines) -> Explanation:
    """Explain `plan` on `engines`; loads nothing and reads no model."""
    device, expected = engines.device, expected_seconds(plan, engines)
    ratios = times.measured(timing_key(plan, engines))
    known = {stage: seconds * ratios[stage] for stage, seconds in expected.items() if stage in ratios}
    found, gpu = needs(plan, engines), needs_gpu(engines.backend)
    where, available, total = _memory(engines.backend, device)
    peak, largest = _peak(found, engines, on_gpu=gpu)
    stages = tuple(_stage(plan, engines, need, device, known.get(need.stage)) for need in found)
    seconds = [stage.seconds for stage in stages]
    return Explanation(
        plan,
        f"{engines.bundle.model.title} {engines.bundle.version}",
        engines.backend,
        where if gpu else f"CPU {cpu_name()}",
        stages,
        peak,
        largest,
        where,
        available,
        total,
        None if None in seconds else sum(filter(None, seconds)),
    )


def shortage(plan: Plan, engines: Engines) -> str | None:
    """A warning if a run takes more memory than there is, which says what takes it and what to change."""
    where, available, _ = _memory(engines.backend, engines.device)
    found = needs(plan, engines)
    peak, largest = _peak(found, engines, on_gpu=needs_gpu(engines.backend))
    if available is None or peak <= available:
        return None
    worst = next(need for need in found if need.stage == largest)
    advice = _advice(worst, plan.precisions[worst.component], engines.backend)
    return (
        f"warning: the stage {largest} takes about {memory_size(peak)} of {where}, of which "
        f"{memory_size(available)} are available; {advice}"
    )


def _advice(need: Need, precision: str, backend: str) -> str:
    if need.weights > (need.activations or 0) + need.arrays:
        if needs_gpu(backend):
            return f"export a smaller {setting('precision')} of {need.component}"
        if precision != "fp32":  # of which the CPU makes copies in fp32
            return f"close other programs, or take {setting('precision')} {need.component}=fp32"
        return "close other programs, or expect its weights to be read again and again"
    if need.component.startswith("vae_") and (need.activations or 0) > need.arrays:
        return f"give a smaller {setting('vae_memory')}"
    return f"give a smaller {setting('height')} and {setting('width')}, or fewer {setting('num_frames')}"


def _memory(backend: str, device: int) -> tuple[str, int | None, int | None]:
    """The memory that engines are in, what is left of it, and how much there is."""
    if needs_gpu(backend):
        gpus = resources.gpus()
        if device >= len(gpus):
            return f"GPU {device}", None, None
        return f"GPU {device} ({gpus[device].name})", gpus[device].free, gpus[device].total
    memory = resources.memory()
    if memory is None:
        return "main memory", None, None
    return "main memory", memory.available, memory.total


def _peak(found: tuple[Need, ...], engines: Engines, on_gpu: bool) -> tuple[int, str]:
    """Bytes of the largest stage, with the engines kept from stages before it, and its name."""
    keep = engines.keep_loaded
    kept: dict[str, int] = {}
    sums: dict[str, int] = {}
    for need in found:
        others = sum(weights for name, weights in kept.items() if name != need.component)
        sums[need.stage] = need.engine_bytes + others + (0 if on_gpu else need.arrays)
        if keep is True or (keep and need.component in keep):
            kept[need.component] = need.weights
    largest = max(sums, key=lambda stage: sums[stage])
    return sums[largest], largest


def _stage(plan: Plan, engines: Engines, need: Need, device: int, seconds: float | None) -> Stage:
    precision = plan.precisions[need.component]
    engine, problem = "", ""
    try:
        engine = fitting(engines.bundle, need.component, engines.backend, precision, need.sizes, device)
    except LtxrtError as error:
        problem = str(error)
    return Stage(
        need.stage,
        need.component,
        precision,
        engine,
        problem,
        need.calls,
        need.sizes,
        need.weights,
        need.activations,
        need.arrays,
        seconds,
    )
