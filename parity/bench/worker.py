"""A process that does one contender's work: it reads requests, a JSON object a line, and answers each in one.

    {"do": "prepare", "contender": {…}, "work": {…}}    load the model, make its inputs
    {"do": "run"}                                       one repetition: seconds, and seconds by stage
    {"do": "output", "path": "…"}                       write the last repetition's output, as .npy
    {"do": "profile", "work": {…}, "steps": 2}          seconds by operator of ltxrt's transformer step
    {"do": "peak"}                                      the process's peak resident bytes

Each contender has a process of its own, which stays alive between its turns: both stay warm, and neither
shares a heap, a thread pool or imported packages with the other.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ltxrt.engines import backend
from ltxrt.engines.bundle import Bundle, read_bundle, read_manifest
from ltxrt.engines.errors import InputError
from ltxrt.engines.families.ltxv.facts import Facts
from ltxrt.parity.bench.work import (
    FRAME_RATE,
    Contender,
    Work,
    component_feed,
    first_frame,
    matrices,
    video_options,
)

# What stays the same from step to step, which the runtime binds once.
BOUND = ("rope_cos", "rope_sin", "context", "context_mask", "timestep_index", "perturbation_mask")
# By component: the class in diffusers or transformers, and its folder in a diffusers pipeline.
TORCH_MODELS = {
    "transformer": ("LTXVideoTransformer3DModel", "transformer"),
    "text_encoder": ("T5EncoderModel", "text_encoder"),
    "vae_encoder": ("AutoencoderKLLTXVideo", "vae"),
    "vae_decoder": ("AutoencoderKLLTXVideo", "vae"),
}
PIPELINES = {"t2v": "LTXPipeline", "i2v": "LTXImageToVideoPipeline"}


@dataclass(frozen=True)
class Outcome:
    """The output of a repetition, and the seconds of its stages where it has some."""

    array: np.ndarray
    stages: dict[str, float] = field(default_factory=dict)


Runner = Callable[[], Outcome]


class Server:
    """The state of a worker between requests."""

    def __init__(self) -> None:
        self._side: Ltxrt | Torch | None = None
        self._runner: Runner | None = None
        self._last: Outcome | None = None

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """The reply to a request; a failure is a reply too."""
        actions: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "prepare": self._prepare,
            "run": self._run,
            "output": self._output,
            "profile": lambda r: {"operators": profile(_work(r), r["steps"])},
            "peak": lambda _: {"bytes": _peak()},
        }
        try:
            return actions[request["do"]](request)
        except Exception as error:  # whatever a contender's packages raise
            lines = str(error).strip().splitlines() or [type(error).__name__]
            return {"failed": lines[0][:300]}

    def _prepare(self, request: dict[str, Any]) -> dict[str, Any]:
        start = time.perf_counter()
        contender, work = Contender(**request["contender"]), _work(request)
        self._last = self._runner = None
        if work.kind == "matmul":
            self._runner = matmul(contender.kind, work)
        else:
            self._side = self._side or (Ltxrt if contender.kind == "ltxrt" else Torch)(contender)
            self._runner = self._side.prepare(work)
        return {"seconds": time.perf_counter() - start}

    def _run(self, _request: dict[str, Any]) -> dict[str, Any]:
        if self._runner is None:
            raise RuntimeError("nothing was prepared")
        start = time.perf_counter()
        self._last = self._runner()
        return {"seconds": time.perf_counter() - start, "stages": self._last.stages}

    def _output(self, request: dict[str, Any]) -> dict[str, Any]:
        if self._last is None:
            raise RuntimeError("nothing was run")
        np.save(request["path"], self._last.array)
        return {}


def _work(request: dict[str, Any]) -> Work:
    return Work(**{**request["work"], "grid": tuple(request["work"]["grid"])})


class Ltxrt:
    """This runtime. An engine stays loaded while the same component of the same bundle is asked for."""

    def __init__(self, contender: Contender) -> None:
        self._backend = contender.backend
        self._key: tuple[object, ...] = ()
        self._engine: backend.Engine | None = None

    def prepare(self, work: Work) -> Runner:
        bundle = read_bundle(work.bundle)
        if work.kind in PIPELINES:
            return self._video(bundle, work)
        engine = self._load(bundle, work)
        feed = component_feed(bundle.facts, work)
        static = {n: a for n, a in feed.items() if n in BOUND}
        changing = {n: a for n, a in feed.items() if n not in BOUND}
        bound = engine.bind(**static) if static else engine

        def run() -> Outcome:
            (output,) = bound(**changing).values()
            return Outcome(output)

        return run

    def _load(self, bundle: Bundle, work: Work) -> backend.Engine:
        key = (bundle.root, work.kind, work.threads, work.calls)
        if self._engine is None or key != self._key:
            if self._engine is not None:
                self._engine.close()
            self._engine = backend.load_engine(
                bundle, work.kind, backend=self._backend, threads=work.threads, calls=work.calls
            )
            self._key = key
        return self._engine

    def _video(self, bundle: Bundle, work: Work) -> Runner:
        from ltxrt.runtime import Pipeline, Request

        pipeline = Pipeline(bundle, backend=self._backend, threads=work.threads, keep_loaded=work.keep_loaded)
        options = video_options(work, pipeline.model.vae)
        if work.kind == "i2v":
            options["image"] = first_frame(work, pipeline.model.vae)
        options |= {"steps": work.steps, "seed": 7, "decode_timestep": 0.0, "decode_noise_scale": 0.0}
        request = Request(reference="diffusers", **options)

        def run() -> Outcome:
            watch = StageWatch()
            frames = pipeline.generate(request, watch).frames
            return Outcome(frames.astype(np.float32) / 255, watch.finish())

        return run


class StageWatch:
    """A pipeline's watcher that times each stage, from its beginning to that of the next one."""

    def __init__(self) -> None:
        self._begun: list[tuple[str, float]] = []

    def __call__(self, event: Any) -> None:
        if event.step is None:
            self._begun.append((event.stage, time.perf_counter()))

    def finish(self) -> dict[str, float]:
        ends = [*(start for _, start in self._begun[1:]), time.perf_counter()]
        seconds: dict[str, float] = defaultdict(float)
        for (stage, start), end in zip(self._begun, ends):
            seconds[stage] += end - start
        return dict(seconds)


def profile(work: Work, steps: int) -> dict[str, float]:
    """Seconds by operator type of one transformer step, the mean of `steps` after a warm-up.

    ONNX Runtime's own profile of a session with the options of `engines.ort`: others would profile another
    session than the one that the runtime loads.
    """
    import onnxruntime

    from ltxrt.engines import ort

    bundle = read_bundle(work.bundle)
    feed = component_feed(bundle.facts, work)
    with tempfile.TemporaryDirectory() as folder:
        options = ort.session_options(bundle.contract("transformer"), work.threads, work.calls)
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


class Torch:
    """diffusers and transformers as their users run them: `from_pretrained`, then call.

    A model stays loaded while the same component of the same folder is asked for.
    """

    def __init__(self, contender: Contender) -> None:
        self._device, self._compiled = contender.device, contender.compiled
        self._key: tuple[str, str] = ("", "")
        self._model: Any = None

    def prepare(self, work: Work) -> Runner:
        import torch

        torch.set_num_threads(work.threads)
        if self._device == "cuda" and not torch.cuda.is_available():
            raise InputError("torch finds no GPU here")
        facts = read_manifest(work.bundle).facts
        if work.kind in PIPELINES:
            return self._video(work, facts)
        model = self._load(work)
        feed = {n: torch.from_numpy(a).to(self._device) for n, a in component_feed(facts, work).items()}
        call = _torch_call(work, model, feed)

        def run() -> Outcome:
            with torch.no_grad():
                return Outcome(call().cpu().numpy())

        return run

    def _load(self, work: Work) -> Any:
        import diffusers
        import torch
        import transformers

        if self._key != (work.model, work.kind):
            name, folder = TORCH_MODELS[work.kind]
            cls = getattr(transformers if work.kind == "text_encoder" else diffusers, name)
            model = cls.from_pretrained(work.diffusers / folder, dtype=torch.float32).to(self._device).eval()
            if self._compiled:
                part = {"vae_encoder": "encoder", "vae_decoder": "decoder"}.get(work.kind)
                (getattr(model, part) if part else model).compile()
            self._key, self._model = (work.model, work.kind), model
        return self._model

    def _video(self, work: Work, facts: Facts) -> Runner:
        import diffusers
        import torch

        if facts.vae is None:
            raise InputError(f"{work.bundle}: records no facts of its autoencoder")
        vae, options = facts.vae, video_options(work, facts.vae)
        pipeline = getattr(diffusers, PIPELINES[work.kind]).from_pretrained(
            work.diffusers, dtype=torch.float32
        )
        pipeline.to(self._device)
        pipeline.set_progress_bar_config(disable=True)
        if self._compiled:
            pipeline.transformer.compile()
            pipeline.vae.decoder.compile()
        if work.kind == "i2v":
            options["image"] = torch.from_numpy(first_frame(work, vae))[None]
        seconds: dict[str, float] = defaultdict(float)
        if self._device == "cpu" and not self._compiled:
            # A compiled part would be compiled with the clock in it, and a GPU returns before it is done.
            _time_stages(pipeline, work.kind, seconds)

        def run() -> Outcome:
            seconds.clear()
            generator = torch.Generator("cpu").manual_seed(7)
            made = pipeline(
                generator=generator, output_type="np", num_inference_steps=work.steps, **options
            ).frames[0]
            return Outcome(np.asarray(made, np.float32), dict(seconds))

        return run


def _torch_call(work: Work, model: Any, feed: dict[str, Any]) -> Callable[[], Any]:
    """One call of a component, in the form in which diffusers' pipelines make it."""
    if work.kind == "transformer":
        frames, height, width = work.grid
        mask, timestep = feed["context_mask"].float(), feed["timesteps"][:, 0] * 1000
        return lambda: (
            model(
                hidden_states=feed["latents"],
                encoder_hidden_states=feed["context"],
                timestep=timestep,
                encoder_attention_mask=mask,
                num_frames=frames,
                height=height,
                width=width,
                rope_interpolation_scale=(8 / FRAME_RATE, 32, 32),
            ).sample
        )
    if work.kind == "text_encoder":
        return lambda: model(feed["input_ids"], attention_mask=feed["attention_mask"])[0]
    mean, deviation = (m.view(1, -1, 1, 1, 1) for m in (model.latents_mean, model.latents_std))
    if work.kind == "vae_encoder":
        return lambda: (model.encode(feed["pixels"]).latent_dist.mode() - mean) / deviation
    return lambda: model.decode(feed["latents"] * deviation + mean, feed.get("timestep")).sample


def _time_stages(pipeline: Any, kind: str, seconds: dict[str, float]) -> None:
    """Add the time of a pipeline's stages to `seconds`, by standing in for the functions that it calls."""

    def wrap(owner: Any, name: str, stage: str) -> None:
        inner = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            result = inner(*args, **kwargs)
            seconds[stage] += time.perf_counter() - start
            return result

        setattr(owner, name, timed)

    wrap(pipeline, "encode_prompt", "text encoder")
    if kind == "i2v":
        wrap(pipeline.vae, "encode", "image encoder")
    wrap(pipeline.transformer, "forward", "transformer")
    wrap(pipeline.vae, "decode", "image decoder")


def matmul(library: str, work: Work) -> Runner:
    """A matrix product through `numpy`, `torch` or `onnxruntime`."""
    left, right = matrices(work)
    if library == "numpy":
        return lambda: Outcome(left @ right)
    if library == "torch":
        import torch

        torch.set_num_threads(work.threads)
        a, b = torch.from_numpy(left), torch.from_numpy(right)
        return lambda: Outcome(torch.matmul(a, b).numpy())
    return _matmul_onnxruntime(work, left, right)


def _matmul_onnxruntime(work: Work, left: np.ndarray, right: np.ndarray) -> Runner:
    """With the second factor as a constant, which ONNX Runtime may rearrange while it loads."""
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        [helper.make_node("MatMul", ["left", "right"], ["product"])],
        "product",
        [helper.make_tensor_value_info("left", TensorProto.FLOAT, left.shape)],
        [helper.make_tensor_value_info("product", TensorProto.FLOAT, (left.shape[0], right.shape[1]))],
        [numpy_helper.from_array(right, "right")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = work.threads
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return lambda: Outcome(np.asarray(session.run(None, {"left": left})[0]))


def _peak() -> int:
    from ltxrt.parity.environment import peak_memory  # here, because its imports are no part of a cold start

    return peak_memory()


def main() -> None:
    """Answer until the requests end: in what was stdout, while what packages print goes to stderr."""
    server = Server()
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as replies:
        os.dup2(2, 1)
        for line in sys.stdin:
            replies.write(json.dumps(server.answer(json.loads(line))) + "\n")
            replies.flush()


if __name__ == "__main__":
    main()
