"""What is measured, section by section: each function makes one section of the result."""

from __future__ import annotations

import dataclasses
import functools
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ltxrt.engines.backend import BACKENDS, available
from ltxrt.engines.bundle import read_bundle
from ltxrt.engines.errors import LtxrtError
from ltxrt.engines.families.ltxv.facts import TransformerFacts
from ltxrt.parity.bench.models import DESCRIPTIONS, Model, ensure
from ltxrt.parity.bench.page import READING
from ltxrt.parity.bench.processes import (
    Absent,
    Arena,
    Worker,
    WorkerError,
    drop_from_cache,
    fresh,
    read_from_disk,
    take_turns,
)
from ltxrt.parity.bench.report import OURS, REFERENCE, Measurement, Profile, Samples, Section
from ltxrt.parity.bench.work import Contender, Grid, Work, grid_of, operations
from ltxrt.parity.environment import module

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
BESIDE: Grid = (1024, 8192, 2048)  # measured beside the transformer's steps
PRODUCTS = 5  # repetitions of a product
MATRIX_OPERATORS = ("MatMul", "Gemm", "FusedMatMul", "FusedGemm", "Attention", "MultiHeadAttention")
GRIDS: dict[str, Grid] = {"tiny": (3, 3, 5), "medium": (3, 4, 6)}  # of a video, by model
PARTS = {"text_encoder": "text encoder", "vae_encoder": "VAE encoder", "vae_decoder": "VAE decoder"}


@dataclass(frozen=True)
class Plan:
    """What to measure. tokens: of the transformer section; layers: of its model; videos: by model.

    absent: who cannot run which model, found out on the way; say: told what is measured next.
    """

    work: Path
    threads: int
    repeats: int
    tokens: tuple[int, ...]
    layers: int
    videos: tuple[str, ...] = ("tiny",)
    compiled: bool = False
    say: Callable[[str], None] = lambda _line: None
    absent: Absent = field(default_factory=dict)

    def contenders(self) -> list[Contender]:
        """ltxrt on every backend, and what a user would run instead."""
        ours, *others = (
            Contender(f"ltxrt {name}", "ltxrt", backend=name, unavailable=_why_not(name)) for name in BACKENDS
        )
        refused = "" if self.compiled else "--compile was not given"
        return [
            ours,
            Contender(REFERENCE, "torch"),
            Contender("diffusers torch.compile", "torch", compiled=True, unavailable=refused),
            *others,
            Contender("diffusers eager, CUDA", "torch", device="cuda"),
        ]

    def model(self, name: str, layers: int = 0) -> str:
        """A model's folder, made where it is not there."""
        model = Model(name, layers)
        self.say(f"model: {model.folder}")
        return str(ensure(self.work, model))

    def product(self, libraries: Arena, grid: Grid, when: str = "") -> Measurement:
        """The rate of a matrix product through every library."""
        size = "×".join(map(str, grid))
        multiply_adds = grid[0] * grid[1] * grid[2]
        timed = libraries.warm(Work("matmul", "", self.threads, grid))
        rates = [
            dataclasses.replace(
                one, values=tuple(2e-9 * multiply_adds / s for s in one.values), difference=None
            )
            for one in timed
        ]
        return Measurement(f"{size} {when}".strip(), "GFLOP/s", tuple(rates))

    def arena(self) -> Arena:
        return Arena(self.contenders(), self.threads, self.repeats, self.absent)

    def libraries(self) -> Arena:
        return Arena(LIBRARIES, self.threads, PRODUCTS, {})


@functools.cache
def _why_not(backend: str) -> str:
    """Why a backend cannot run on this machine, "" where it can."""
    try:
        available(backend)
    except LtxrtError as error:
        return str(error)
    return ""


def peak(plan: Plan) -> Section:
    """The machine's fp32 matrix product, through three libraries."""
    rows = []
    with plan.libraries() as libraries:
        for grid in MATRICES:
            plan.say(f"matrix product {'×'.join(map(str, grid))}")
            rows.append(plan.product(libraries, grid))
    about = (
        "fp32 matrix products (rows×inner×columns), warm; ONNX Runtime with the second factor as a constant, "
        "which it rearranges while loading. The best single product of the whole run is the peak."
    )
    return Section("peak", "Peak of the machine", about, tuple(rows))


def transformer(plan: Plan) -> Section:
    """One step by number of tokens, and which operators take the time of ltxrt's."""
    folder = plan.model("wide", plan.layers)
    facts = _facts(folder)
    rows, steps = (
        [],
        {n: Work("transformer", folder, plan.threads, grid_of(n), TEXT, calls=STEPS) for n in plan.tokens},
    )
    with plan.libraries() as libraries:
        with plan.arena() as arena:
            for tokens, work in steps.items():
                plan.say(f"transformer step, {tokens} tokens")
                samples = arena.warm(work)
                count = operations(facts, tokens, TEXT)
                rows.append(Measurement(f"{tokens} tokens", "s", samples, tokens, count))
                rows.append(plan.product(libraries, BESIDE, f"beside {tokens} tokens"))
        plan.say("operators of a step")
        profiles = tuple(_profile(plan, facts, tokens, steps[tokens]) for tokens in _profiled(plan.tokens))
        rows.append(plan.product(libraries, BESIDE, "after the profiles"))
    about = (
        f"One call of the transformer in fp32: {DESCRIPTIONS['wide']} ({plan.layers}), width {facts.width}, "
        f"{TEXT} text tokens, one sample. Weights are random. ltxrt's engine is loaded as for a run of "
        f"{STEPS} steps. The machine's peak is measured once more beside the steps, because other work "
        "on the machine slows both."
    )
    return Section("transformer", "Transformer step", about, tuple(rows), profiles)


def _profile(plan: Plan, facts: TransformerFacts, tokens: int, work: Work) -> Profile:
    steps = min(2, plan.repeats)
    try:
        with Worker(Contender(OURS, "ltxrt"), plan.threads) as worker:
            operators = worker.ask("profile", work=dataclasses.asdict(work), steps=steps)["operators"]
    except WorkerError as error:
        raise LtxrtError(f"the profile of a transformer step failed: {error}") from error
    matrices = sum(seconds for name, seconds in operators.items() if name in MATRIX_OPERATORS)
    return Profile(f"{tokens} tokens", tokens, steps, operators, matrices, operations(facts, tokens, TEXT))


def _profiled(tokens: Sequence[int]) -> list[int]:
    """The largest number of tokens, and before it the first of at least 1000."""
    return sorted({next((n for n in sorted(tokens) if n >= 1000), max(tokens)), max(tokens)})


def components(plan: Plan) -> Section:
    """Text encoder, VAE encoder and VAE decoder."""
    folder, rows = plan.model("medium"), []
    for kind, name in PARTS.items():
        plan.say(name)
        size = f"{TEXT} tokens" if kind == "text_encoder" else f"{_pixels('medium')} pixels"
        with plan.arena() as arena:
            samples = arena.warm(Work(kind, folder, plan.threads, GRIDS["medium"], TEXT))
        rows.append(Measurement(f"{name}, {size}", "s", samples))
    about = f"Single calls in fp32 of the medium model: {DESCRIPTIONS['medium']}. Weights are random."
    return Section("components", "The other components", about, tuple(rows))


def videos(plan: Plan) -> Section:
    """Whole runs, everything loaded before."""
    rows = []
    for name in plan.videos:
        folder = plan.model(name)
        for kind in ("t2v", "i2v"):
            plan.say(f"{kind}, {name} model")
            with plan.arena() as arena:
                samples = arena.warm(Work(kind, folder, plan.threads, GRIDS[name], steps=8))
            rows.append(Measurement(f"{kind}, {name} model, {_pixels(name)}, 8 steps", "s", samples))
    about = (
        "A prompt (i2v: and an image) to frames with guidance 3 from the same seed: LTXPipeline and "
        "LTXImageToVideoPipeline, and ltxrt reproducing them (`--compat diffusers`). Engines and "
        "models are loaded before and stay loaded. Models: "
        + "; ".join(f"{name}: {DESCRIPTIONS[name]}" for name in plan.videos)
        + ". ltxrt rounds frames to 8 bits, and its i2v conditions on the posterior's mean where diffusers "
        "draws a sample, so that i2v's frames differ; random weights magnify the difference."
    )
    return Section("videos", "Whole videos", about, tuple(rows))


def cold_start(plan: Plan) -> Section:
    """From the start of a process to the end of its first transformer call."""
    work = Work("transformer", plan.model("tiny"), plan.threads, GRIDS["tiny"], TEXT)
    plan.say("cold start")
    starts = plan.arena().fresh(work, "run")
    plan.say("ltx-run --help")
    helps = Samples("ltxrt", tuple(_help() for _ in range(plan.repeats)))
    rows = (Measurement("first transformer call", "s", starts), Measurement("ltx-run --help", "s", (helps,)))
    about = (
        f"The tiny model ({DESCRIPTIONS['tiny']}); files are in the system's cache. Timed from outside: from "
        "the start of a Python process, through its imports and the loading of the transformer, to the end "
        "of the first call; diffusers reads the same weights from a diffusers folder."
    )
    return Section("cold-start", "Cold start", about, rows)


def _help() -> float:
    start = time.perf_counter()
    subprocess.run(module("ltxrt.runtime.cli", "--help"), check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def memory(plan: Plan) -> Section:
    """Peak resident memory of a video, in a process of its own."""
    rows = []
    for name in plan.videos:
        work = Work("t2v", plan.model(name), plan.threads, GRIDS[name], steps=2, keep_loaded=False)
        plan.say(f"peak memory of t2v, {name} model")
        samples = plan.arena().fresh(work, "peak")
        rows.append(Measurement(f"t2v, {name} model, {_pixels(name)}", "bytes", samples))
    about = (
        "Peak resident memory of a process that makes one video, imports included; ltxrt loads one engine at "
        "a time, as `ltx-run` does."
    )
    return Section("memory", "Memory", about, tuple(rows))


def full_size(plan: Plan) -> Section:
    """Cold start with the 2B's own transformer from the disk, beside the time of reading its weights."""
    work = Work("transformer", plan.model("wide", LAYERS), plan.threads, GRIDS["tiny"], TEXT)
    contenders = (Contender(OURS, "ltxrt", backend="onnxruntime"), Contender(REFERENCE, "torch"))

    def turn(contender: Contender) -> tuple[float, float]:
        files = work.bundle if contender.kind == "ltxrt" else work.diffusers
        plan.say(f"cold start of the 2B transformer, {contender.name}")
        reading = read_from_disk(files)
        drop_from_cache(files)
        return reading, fresh(contender, work, plan.threads)

    failed: dict[str, str] = {}
    found = take_turns(contenders, plan.repeats, failed, turn)
    for name, reason in failed.items():
        raise LtxrtError(f"the cold start of {name} failed: {reason}")
    about = (
        f"The 2B transformer itself ({LAYERS} layers, fp32, random weights), "
        f"{work.grid[0] * work.grid[1] * work.grid[2]} tokens. Its files are dropped from the system's cache "
        "before every start and every reading, which reads them from beginning to end. ltxrt's engine is "
        "loaded as for a run of few steps; for many it rearranges its matrices first (docs/full-size.md)."
    )
    rows = tuple(
        Measurement(
            what, "s", tuple(Samples(name, tuple(t[i] for t in turns)) for name, turns in found.items())
        )
        for i, what in enumerate((READING, "first transformer call"))
    )
    return Section("full-size", "Cold start at full size", about, rows)


def _facts(folder: str) -> TransformerFacts:
    facts = read_bundle(Path(folder) / "bundle").facts.transformer
    if facts is None:
        raise LtxrtError(f"{folder}: has no transformer; delete it, so that it is made anew")
    return facts


def _pixels(model: str) -> str:
    frames, height, width = GRIDS[model]
    return f"{8 * frames - 7}×{32 * height}×{32 * width}"


# How many times a section tells what it measures next.
MEASUREMENTS: dict[str, Callable[[Plan], int]] = {
    "peak": lambda _plan: len(MATRICES),
    "transformer": lambda plan: len(plan.tokens) + 2,
    "components": lambda _plan: len(PARTS) + 1,
    "videos": lambda plan: 3 * len(plan.videos),
    "cold-start": lambda _plan: 3,
    "memory": lambda plan: 2 * len(plan.videos),
    "full-size": lambda plan: 2 * plan.repeats + 1,
}
SECTIONS: dict[str, Callable[[Plan], Section]] = {
    "peak": peak,
    "transformer": transformer,
    "components": components,
    "videos": videos,
    "cold-start": cold_start,
    "memory": memory,
    "full-size": full_size,
}
