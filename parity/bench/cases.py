"""The measured pieces of work, section by section. Each function makes one section of the result."""

from __future__ import annotations

import dataclasses
import functools
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ltxrt.engines.bundle import read_bundle
from ltxrt.engines.errors import LtxrtError
from ltxrt.engines.families.ltxv.facts import TransformerFacts
from ltxrt.parity.bench import disk, flops
from ltxrt.parity.bench import models as bench_models
from ltxrt.parity.bench import results as bench_results
from ltxrt.parity.bench.models import DESCRIPTIONS, Model
from ltxrt.parity.bench.ours import MATRIX_OPERATORS
from ltxrt.parity.bench.processes import Arena, Worker, WorkerError, arena, fresh
from ltxrt.parity.bench.results import OURS, REFERENCE, Measurement, Profile, Samples, Section
from ltxrt.parity.bench.work import Contender, Grid, Work, grid_of
from ltxrt.parity.processes import module

TEXT = 128  # text tokens
LAYERS = 28  # of the 2B transformer
STEPS = 40  # of the sampling run that a transformer step is part of: the presets' own number
LIBRARIES = (
    Contender("NumPy", "numpy"),
    Contender("torch", "torch"),
    Contender("ONNX Runtime", "onnxruntime"),
)
# Rows, inner, columns: square ones, and the projections of a 2B step.
MATRICES: tuple[Grid, ...] = ((1024, 1024, 1024), (2048, 2048, 2048), (1024, 2048, 8192), (1024, 8192, 2048))
BESIDE: Grid = (1024, 8192, 2048)
PRODUCTS = 5  # repetitions of a product
TINY: Grid = (3, 3, 5)
MEDIUM: Grid = (3, 4, 6)
NOT_COMPILED = "--compile was not given"
PARTS = (("text_encoder", "text encoder"), ("vae_encoder", "VAE encoder"), ("vae_decoder", "VAE decoder"))


@dataclass(frozen=True)
class Plan:
    """What to measure. tokens: of the transformer section; layers: of its model; videos: by model."""

    work: Path
    threads: int
    repeats: int
    tokens: tuple[int, ...]
    layers: int
    videos: tuple[str, ...] = ("tiny",)
    compiled: bool = False
    absent: dict[tuple[str, str], str] = field(default_factory=dict)

    def contenders(self) -> list[Contender]:
        """Ours on every backend, and what a user would run instead; those that cannot run here say why."""
        backends = ("onnxruntime", "onnxruntime_cuda", "tensorrt", "tensorrt_rtx")
        ours = [Contender(f"ltxrt {name}", "ltxrt", backend=name) for name in backends]
        eager = Contender(REFERENCE, "torch")
        cuda = Contender("diffusers eager, CUDA", "torch", device="cuda")
        compiled = Contender("diffusers torch.compile", "torch", compiled=True)
        return [ours[0], eager, *([compiled] if self.compiled else []), *ours[1:], cuda]

    def missing(self) -> tuple[Samples, ...]:
        """Who was not asked for."""
        return () if self.compiled else (Samples("diffusers torch.compile", skipped=NOT_COMPILED),)


Say = Callable[[str], None]


def transformer(plan: Plan, say: Say) -> Section:
    """One step by tokens, and where ours goes."""
    model = Model("wide", plan.layers)
    folder, layers = _model(plan, model, say), plan.layers
    facts = _facts(folder)
    rows, step = [], functools.partial(_step, plan, folder=folder, facts=facts, say=say)
    with arena(LIBRARIES, plan.threads, PRODUCTS, {}) as libraries:
        with arena(plan.contenders(), plan.threads, plan.repeats, plan.absent) as field_:
            for tokens in plan.tokens:
                rows += [step(field_, tokens), _product(plan, libraries, BESIDE, f"beside {tokens} tokens")]
        say("operators of a step")
        profiles = tuple(_profile(plan, folder, facts, tokens) for tokens in _ends(plan.tokens))
        rows.append(_product(plan, libraries, BESIDE, "after the profiles"))
    about = (
        f"One call of the transformer in fp32: {DESCRIPTIONS['wide']} ({layers}), width {facts.width}, "
        f"{TEXT} text tokens, one sample. Weights are random. Ours is loaded as for a run of {STEPS} steps. "
        "The machine's peak is measured beside "
        "the steps once more, because other work on the machine takes from both."
    )
    return Section("transformer", "Transformer step", about, tuple(rows), profiles)


def _step(
    plan: Plan, field_: Arena, tokens: int, *, folder: Path, facts: TransformerFacts, say: Say
) -> Measurement:
    say(f"transformer step, {tokens} tokens")
    work = Work("transformer", str(folder), plan.threads, grid_of(tokens), TEXT, calls=STEPS)
    operations = flops.transformer(facts, flops.Call(1, tokens, TEXT))
    samples = field_.measure(work) + plan.missing()
    return Measurement(f"{tokens} tokens", "s", samples, tokens, operations)


def _profile(plan: Plan, folder: Path, facts: TransformerFacts, tokens: int) -> Profile:
    work = Work("transformer", str(folder), plan.threads, grid_of(tokens), TEXT, calls=STEPS)
    steps = min(2, plan.repeats)
    operators = _operators(plan, work, steps)
    matrices = sum(seconds for name, seconds in operators.items() if name in MATRIX_OPERATORS)
    operations = flops.transformer(facts, flops.Call(1, tokens, TEXT))
    return Profile(f"{tokens} tokens", tokens, steps, operators, matrices, operations)


def _operators(plan: Plan, work: Work, steps: int) -> dict[str, float]:
    worker = Worker(Contender(OURS, "ltxrt"), plan.threads)
    try:
        return dict(worker.ask("profile", work=dataclasses.asdict(work), steps=steps)["operators"])
    except WorkerError as error:
        raise LtxrtError(f"the profile of a transformer step failed: {error}") from error
    finally:
        worker.close()


def peak(plan: Plan, say: Say) -> Section:
    """The machine's fp32 matrix product, through three libraries."""
    rows = []
    with arena(LIBRARIES, plan.threads, PRODUCTS, {}) as libraries:
        for grid in MATRICES:
            say(f"matrix product {'×'.join(map(str, grid))}")
            rows.append(_product(plan, libraries, grid))
    about = (
        "fp32 matrix products (rows×inner×columns), warm; ONNX Runtime with the second factor as a constant, "
        "which it rearranges while loading. The best single product of the whole run is the peak."
    )
    return Section("peak", "Peak of the machine", about, tuple(rows))


def _product(plan: Plan, libraries: Arena, grid: Grid, when: str = "") -> Measurement:
    seconds = libraries.measure(Work("matmul", "", plan.threads, grid))
    name = " ".join(filter(None, ("×".join(map(str, grid)), when)))
    return Measurement(name, "GFLOP/s", tuple(_rate(s, grid[0] * grid[1] * grid[2]) for s in seconds))


def _rate(samples: Samples, operations: int) -> Samples:
    rates = tuple(2e-9 * operations / seconds for seconds in samples.values)
    return Samples(samples.contender, rates, samples.skipped)


def components(plan: Plan, say: Say) -> Section:
    """Text encoder, VAE encoder and VAE decoder."""
    folder = _model(plan, Model("medium"), say)
    rows = []
    for kind, name in PARTS:
        say(name)
        size = f"{TEXT} tokens" if kind == "text_encoder" else f"{_pixels(MEDIUM)} pixels"
        work = Work(kind, str(folder), plan.threads, MEDIUM, TEXT)
        with arena(plan.contenders(), plan.threads, plan.repeats, plan.absent) as field_:
            samples = field_.measure(work) + plan.missing()
        rows.append(Measurement(f"{name}, {size}", "s", samples))
    about = f"Single calls in fp32 of the medium model: {DESCRIPTIONS['medium']}. Weights are random."
    return Section("components", "The other components", about, tuple(rows))


def videos(plan: Plan, say: Say) -> Section:
    """Whole runs, everything loaded before."""
    rows = []
    for name in plan.videos:
        folder, grid = _model(plan, Model(name), say), TINY if name == "tiny" else MEDIUM
        for kind in ("t2v", "i2v"):
            say(f"{kind}, {name} model")
            work = Work(kind, str(folder), plan.threads, grid, steps=8)
            with arena(plan.contenders(), plan.threads, plan.repeats, plan.absent) as field_:
                samples = field_.measure(work) + plan.missing()
            rows.append(Measurement(f"{kind}, {name} model, {_pixels(grid)}, 8 steps", "s", samples))
    about = (
        "A prompt (i2v: and an image) to frames with guidance 3 from the same seed: LTXPipeline and "
        "LTXImageToVideoPipeline, and ours with the same habits (`--reference diffusers`). Engines and "
        "models are loaded before and stay loaded. Models: "
        + "; ".join(f"{name}: {DESCRIPTIONS[name]}" for name in plan.videos)
        + ". Frames of ours are rounded to 8 bits, and i2v conditions on the posterior's mean where "
        "diffusers draws a sample of it, so that i2v's frames differ; random weights make much of that."
    )
    return Section("videos", "Whole videos", about, tuple(rows))


def cold_start(plan: Plan, say: Say) -> Section:
    """From the start of a process to the end of its first transformer call."""
    folder = _model(plan, Model("tiny"), say)
    work = Work("transformer", str(folder), plan.threads, TINY, TEXT)
    say("cold start")
    starts = _fresh(plan, work, lambda seconds, reply: seconds)
    say("ltx-run --help")
    helps = Samples("ltxrt", tuple(_help() for _ in range(plan.repeats)))
    rows = (
        Measurement("first transformer call", "s", starts),
        Measurement("ltx-run --help", "s", (helps,)),
    )
    about = (
        f"The tiny model ({DESCRIPTIONS['tiny']}); files are in the system's cache. Timed from outside: from "
        "the start of a Python process, through its imports and the loading of the transformer, to the end "
        "of the first call; diffusers reads the same weights from a diffusers folder."
    )
    return Section("cold-start", "Cold start", about, rows)


def memory(plan: Plan, say: Say) -> Section:
    """Peak resident memory of a video, in a process of its own."""
    rows = []
    for name in plan.videos:
        folder, grid = _model(plan, Model(name), say), TINY if name == "tiny" else MEDIUM
        say(f"peak memory of t2v, {name} model")
        work = Work("t2v", str(folder), plan.threads, grid, steps=2, keep_loaded=False)
        samples = _fresh(plan, work, lambda seconds, reply: float(reply["bytes"]), do="peak")
        rows.append(Measurement(f"t2v, {name} model, {_pixels(grid)}", "bytes", samples))
    about = (
        "Peak resident memory of a process that makes one video, imports included; ours loads one engine at "
        "a time, as `ltx-run` does."
    )
    return Section("memory", "Memory", about, tuple(rows))


def full_size(plan: Plan, say: Say) -> Section:
    """Cold start with the 2B's own transformer from the disk, beside the time of reading its weights."""
    folder = _model(plan, Model("wide", LAYERS), say)
    work = Work("transformer", str(folder), plan.threads, TINY, TEXT)
    ours, theirs = Contender(OURS, "ltxrt", backend="onnxruntime"), Contender(REFERENCE, "torch")
    sides = {OURS: (ours, work.bundle), REFERENCE: (theirs, work.diffusers)}
    reading: dict[str, list[float]] = {name: [] for name in sides}
    starts: dict[str, list[float]] = {name: [] for name in sides}
    for name in bench_results.interleaved(list(sides), plan.repeats):
        contender, files = sides[name]
        say(f"cold start of the 2B transformer, {name}")
        reading[name].append(disk.read(files))
        disk.forget(files)
        starts[name].append(fresh(contender, work, plan.threads)[0])
    rows = tuple(
        Measurement(what, "s", tuple(Samples(name, tuple(values)) for name, values in found.items()))
        for what, found in (
            ("reading the weights from the disk", reading),
            ("first transformer call", starts),
        )
    )
    about = (
        f"The 2B transformer itself ({LAYERS} layers, fp32, random weights), "
        f"{TINY[0] * TINY[1] * TINY[2]} tokens. Its files are dropped from the system's cache before every "
        "start and every reading, which reads them from beginning to end. Ours is loaded as for a run of few "
        "steps; for many it rearranges its matrices first (docs/full-size.md)."
    )
    return Section("full-size", "Cold start at full size", about, rows)


def _fresh(
    plan: Plan, work: Work, value: Callable[[float, dict], float], do: str = "run"
) -> tuple[Samples, ...]:
    """A new process for every repetition, in turns; the first of each is a warm-up of the file cache."""
    found: dict[str, list[float]] = {one.name: [] for one in plan.contenders()}
    skipped: dict[str, str] = {
        name: plan.absent[name, work.model] for name in found if (name, work.model) in plan.absent
    }
    contenders = {one.name: one for one in plan.contenders()}
    for name in bench_results.interleaved(list(found), plan.repeats + 1):
        if name in skipped:
            continue
        try:
            found[name].append(value(*fresh(contenders[name], work, plan.threads, do)))
        except WorkerError as error:
            skipped[name] = plan.absent[name, work.model] = str(error)
    samples = [Samples(n, () if n in skipped else tuple(v[1:]), skipped.get(n, "")) for n, v in found.items()]
    return (*samples, *plan.missing())


def _help() -> float:
    start = time.perf_counter()
    subprocess.run(module("ltxrt.runtime.cli", "--help"), check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def _model(plan: Plan, model: Model, say: Say) -> Path:
    say(f"model: {model.folder}")
    return bench_models.ensure(plan.work, model)


def _facts(folder: Path) -> TransformerFacts:
    facts = read_bundle(folder / "bundle").facts.transformer
    if facts is None:
        raise LtxrtError(f"{folder}: has no transformer; delete it, so that it is made anew")
    return facts


def _pixels(grid: Grid) -> str:
    frames, height, width = grid
    return f"{8 * frames - 7}×{32 * height}×{32 * width}"


def _ends(tokens: Sequence[int]) -> tuple[int, ...]:
    """The largest number, and before it the first of at least 1000."""
    usual = next((n for n in sorted(tokens) if n >= 1000), max(tokens))
    return tuple(sorted({usual, max(tokens)}))


SECTIONS: dict[str, Callable[[Plan, Say], Section]] = {
    "peak": peak,
    "transformer": transformer,
    "components": components,
    "videos": videos,
    "cold-start": cold_start,
    "memory": memory,
    "full-size": full_size,
}
