"""The benchmark's work on this runtime, as users run it."""

from __future__ import annotations

import json
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from ltxrt.engines import backend
from ltxrt.engines.bundle import Bundle, read_bundle
from ltxrt.engines.families.ltxv.facts import VaeFacts
from ltxrt.parity.bench import work as bench_work
from ltxrt.parity.bench.work import Contender, Outcome, Runner, Work
from ltxrt.runtime.sampling.latents import LatentShape

BOUND = ("rope_cos", "rope_sin", "context", "context_mask", "timestep_index", "perturbation_mask")
MATRIX_OPERATORS = ("MatMul", "Gemm", "FusedMatMul", "FusedGemm", "Attention", "MultiHeadAttention")


class Ours:
    """A contender: what is loaded stays loaded while the same bundle's same component is asked for."""

    def __init__(self, contender: Contender) -> None:
        self._backend = contender.backend
        self._key: tuple[object, ...] = ()
        self._engine: backend.Engine | None = None

    def prepare(self, work: Work) -> Runner:
        bundle = read_bundle(work.bundle)
        if work.kind in ("t2v", "i2v"):
            return self._video(bundle, work)
        engine = self._load(bundle, work)
        feed = bench_work.component_feed(bundle.facts, work)
        # As in the runtime, what stays the same from step to step is given once.
        static = {n: a for n, a in feed.items() if n in BOUND}
        rest = {n: a for n, a in feed.items() if n not in BOUND}
        bound = engine.bind(**static) if static else engine
        return lambda: Outcome(bound(**rest), {})

    def _load(self, bundle: Bundle, work: Work) -> backend.Engine:
        key = (bundle.root, work.kind, work.threads, work.calls)
        if self._engine is None or key != self._key:
            if self._engine is not None:
                self._engine.close()
            self._key = key
            self._engine = backend.load_engine(
                bundle, work.kind, backend=self._backend, threads=work.threads, calls=work.calls
            )
        return self._engine

    def _video(self, bundle: Bundle, work: Work) -> Runner:
        from ltxrt.runtime import Pipeline, Request

        pipeline = Pipeline(bundle, backend=self._backend, threads=work.threads, keep_loaded=work.keep_loaded)
        options = bench_work.video_options(work, pipeline.vae)
        if work.kind == "i2v":
            options["image"] = first_frame(work, pipeline.vae)
        request = Request(
            steps=work.steps,
            seed=7,
            decode_timestep=0.0,
            decode_noise_scale=0.0,
            reference="diffusers",
            **options,
        )

        def run() -> Outcome:
            watch = Stages()
            frames = pipeline.generate(request, watch).frames
            return Outcome(frames.astype(np.float32) / 255, watch.ended())

        return run


def first_frame(work: Work, vae: VaeFacts) -> np.ndarray:
    """The image (3,H,W) of an image-to-video run."""
    return bench_work.picture(LatentShape(1, *work.grid[1:]), vae)[:, 0]


class Stages:
    """A pipeline's watcher that takes the time from each stage's beginning to the next one's."""

    def __init__(self) -> None:
        self._name, self._start = "", time.perf_counter()
        self._seconds: dict[str, float] = defaultdict(float)

    def __call__(self, event: Any) -> None:
        if event.step is None:
            self._enter(event.stage)

    def _enter(self, name: str) -> None:
        now = time.perf_counter()
        if self._name:
            self._seconds[self._name] += now - self._start
        self._name, self._start = name, now

    def ended(self) -> dict[str, float]:
        self._enter("")
        return dict(self._seconds)


def profile(work: Work, steps: int) -> dict[str, float]:
    """Seconds by operator type of one transformer step, the mean of `steps` after a warm-up.

    ONNX Runtime's own profile of the session that the runtime makes: its options are the ones of
    `engines.ort`, or this would be another session's profile.
    """
    import onnxruntime

    from ltxrt.engines import ort

    bundle = read_bundle(work.bundle)
    feed = bench_work.component_feed(bundle.facts, work)
    with tempfile.TemporaryDirectory() as folder:
        options = ort._session_options("transformer", work.threads, work.calls)
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        graph = str(bundle.path(bundle.graph("transformer").file))
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        for _ in range(steps + 1):
            session.run(None, feed)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return by_operator(events, steps)


def by_operator(events: list[dict[str, Any]], steps: int) -> dict[str, float]:
    """Mean seconds per step and operator type of all but the first of `steps` + 1 runs, largest first."""
    kernels = [e for e in events if e.get("cat") == "Node" and e["name"].endswith("_kernel_time")]
    runs = sorted(e["ts"] for e in events if e["name"] == "model_run")
    seconds: dict[str, float] = defaultdict(float)
    for event in kernels:
        if len(runs) < 2 or event["ts"] >= runs[1]:
            seconds[event["args"]["op_name"]] += event["dur"] / 1e6 / steps
    return dict(sorted(seconds.items(), key=lambda item: -item[1]))
