"""The benchmark's work on diffusers and transformers, as their users run it: `from_pretrained`, then call."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np

from ltxrt.engines.bundle import read_manifest
from ltxrt.engines.errors import InputError
from ltxrt.engines.families.ltxv.facts import Facts, VaeFacts
from ltxrt.parity.bench import work as bench_work
from ltxrt.parity.bench.ours import first_frame
from ltxrt.parity.bench.work import Contender, Outcome, Runner, Work

CLASSES = {
    "transformer": "LTXVideoTransformer3DModel",
    "vae_encoder": "AutoencoderKLLTXVideo",
    "vae_decoder": "AutoencoderKLLTXVideo",
}
SUBFOLDERS = {
    "transformer": "transformer",
    "text_encoder": "text_encoder",
    "vae_encoder": "vae",
    "vae_decoder": "vae",
}
PIPELINES = {"t2v": "LTXPipeline", "i2v": "LTXImageToVideoPipeline"}


class Torch:
    """A contender: what is loaded stays loaded while the same folder's same component is asked for."""

    def __init__(self, contender: Contender) -> None:
        self._device, self._compiled = contender.device, contender.compiled
        self._key: tuple[object, ...] = ()
        self._model: Any = None

    def prepare(self, work: Work) -> Runner:
        import torch

        torch.set_num_threads(work.threads)
        if self._device == "cuda" and not torch.cuda.is_available():
            raise InputError("torch sees no GPU here")
        facts = read_manifest(work.bundle).facts
        if work.kind in PIPELINES:
            return self._video(work, facts)
        model = self._load(work, SUBFOLDERS[work.kind])
        feed = {n: _tensor(a, self._device) for n, a in bench_work.component_feed(facts, work).items()}
        call = _component(work, model, feed)

        def run() -> Outcome:
            with torch.no_grad():
                return Outcome(call().cpu().numpy(), {})

        return run

    def _load(self, work: Work, subfolder: str) -> Any:
        key = (work.model, work.kind)
        if key != self._key:
            self._model = _loaded(work, subfolder).to(self._device).eval()
            self._key = key
            if self._compiled:
                _compile(self._model, work.kind)
        return self._model

    def _video(self, work: Work, facts: Facts) -> Runner:
        import torch

        pipeline = _pipeline_class(work).from_pretrained(work.diffusers, dtype=torch.float32)
        pipeline.to(self._device)
        pipeline.set_progress_bar_config(disable=True)
        if self._compiled:
            pipeline.transformer.compile()
            pipeline.vae.decoder.compile()
        vae = facts.vae
        if vae is None:
            raise InputError(f"{work.bundle}: says nothing of its autoencoder")
        # A compiled part would be compiled with the clock in it, and a GPU is not done when a call returns.
        plain = self._device == "cpu" and not self._compiled
        stages = Stages(pipeline, work.kind) if plain else None

        def run() -> Outcome:
            array = _generate(pipeline, work, vae)
            return Outcome(array, stages.taken() if stages else {})

        return run


def _tensor(array: np.ndarray, device: str) -> Any:
    import torch

    return torch.from_numpy(array).to(device)


def _loaded(work: Work, subfolder: str) -> Any:
    import diffusers
    import torch
    import transformers

    cls = transformers.T5EncoderModel if subfolder == "text_encoder" else None
    cls = cls or getattr(diffusers, CLASSES[work.kind])
    return cls.from_pretrained(work.diffusers / subfolder, dtype=torch.float32)


def _compile(model: Any, kind: str) -> None:
    part = {"vae_encoder": "encoder", "vae_decoder": "decoder"}.get(kind)
    (getattr(model, part) if part else model).compile()


def _pipeline_class(work: Work) -> Any:
    import diffusers

    return getattr(diffusers, PIPELINES[work.kind])


def _component(work: Work, model: Any, feed: dict[str, Any]) -> Callable[[], Any]:
    """One call of a component, in the form in which diffusers' pipelines make it."""
    if work.kind == "transformer":
        return _transformer(work, model, feed)
    if work.kind == "text_encoder":
        return lambda: model(feed["input_ids"], attention_mask=feed["attention_mask"])[0]
    mean, deviation = (m.view(1, -1, 1, 1, 1) for m in (model.latents_mean, model.latents_std))
    if work.kind == "vae_encoder":
        return lambda: (model.encode(feed["pixels"]).latent_dist.mode() - mean) / deviation
    return lambda: model.decode(feed["latents"] * deviation + mean, feed.get("timestep")).sample


def _transformer(work: Work, model: Any, feed: dict[str, Any]) -> Callable[[], Any]:
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
            rope_interpolation_scale=(8 / bench_work.FRAME_RATE, 32, 32),
        ).sample
    )


def _generate(pipeline: Any, work: Work, vae: VaeFacts) -> np.ndarray:
    import torch

    options = bench_work.video_options(work, vae)
    if work.kind == "i2v":
        options["image"] = torch.from_numpy(first_frame(work, vae))[None]
    generator = torch.Generator("cpu").manual_seed(7)
    made = pipeline(generator=generator, output_type="np", num_inference_steps=work.steps, **options).frames[
        0
    ]
    return np.asarray(made, np.float32)


class Stages:
    """Takes the time of a pipeline's parts by standing in for the functions that it calls."""

    def __init__(self, pipeline: Any, kind: str) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._wrap(pipeline, "encode_prompt", "text encoder")
        if kind == "i2v":
            self._wrap(pipeline.vae, "encode", "image encoder")
        self._wrap(pipeline.transformer, "forward", "transformer")
        self._wrap(pipeline.vae, "decode", "image decoder")

    def taken(self) -> dict[str, float]:
        """The seconds since the last time, and begin anew."""
        seconds, self.seconds = self.seconds, defaultdict(float)
        return dict(seconds)

    def _wrap(self, owner: Any, name: str, stage: str) -> None:
        inner = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            result = inner(*args, **kwargs)
            self.seconds[stage] += time.perf_counter() - start
            return result

        setattr(owner, name, timed)


def matmul(work: Work) -> Runner:
    """torch's matrix product."""
    import torch

    torch.set_num_threads(work.threads)
    left, right = (torch.from_numpy(m) for m in bench_work.matrices(work))
    with torch.no_grad():
        return lambda: Outcome(torch.matmul(left, right).numpy(), {})
