"""Golden vectors of the official pipeline: `golden/official.npz`, from the cases of `golden/cases.json`.

    python tests/runtime/ltxv/make_official.py [CASE …]

It runs in an environment of its own, which the official package's pins keep apart from this repository's:
Python 3.11, ltx-video 0.1.2, torch 2.13.0 for the CPU, torchvision 0.28.0 (its Python part is enough),
diffusers 0.33.1, transformers 4.51.3, numpy 2.2.6, timm 1.0.31 (without its dependencies), einops 0.8.2,
imageio 2.38.1 with imageio-ffmpeg 0.8.1, av 18.1.0 as in constraints.txt (the codec's result is part of the
vectors), and this repository without its dependencies, which writes the checkpoints that the tests use too.

Two deliberate differences between that pipeline and ours are taken out of it (docs/design.md): the process
keeps to one core, because x264's result depends on their number, and the posterior's sample is drawn but its
mean is used. Everything else is the package's own code, from the reading of files on; fp32 throughout.
Without arguments all cases are made, with names of cases only those, and the others stay as they were.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import ltx_video.pipelines.pipeline_ltx_video as official
import numpy as np
import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from ltx_video.inference import calculate_padding, load_media_file, prepare_conditioning, seed_everething
from ltx_video.models.autoencoders.causal_video_autoencoder import CausalVideoAutoencoder
from ltx_video.models.autoencoders.latent_upsampler import LatentUpsampler
from ltx_video.models.transformers.symmetric_patchifier import SymmetricPatchifier
from ltx_video.models.transformers.transformer3d import Transformer3DModel
from ltx_video.schedulers.rf import RectifiedFlowScheduler
from transformers import T5EncoderModel, T5TokenizerFast

from ltxrt.export.ltxv.config import UpsamplerConfig
from ltxrt.parity.synthetic import checkpoint as synthetic
from ltxrt.parity.synthetic import models as synthetic_models

HERE = Path(__file__).parent / "golden"
UPSAMPLER = UpsamplerConfig(16, 64, 2, temporal=False)  # as in tests/conftest.py
NAMES = {
    "steps": "num_inference_steps",
    "skip_initial": "skip_initial_inference_steps",
    "skip_final": "skip_final_inference_steps",
    "stochastic": "stochastic_sampling",
    "cfg_star": "cfg_star_rescale",
    "image_noise_scale": "image_cond_noise_scale",
    "max_tokens": "text_encoder_max_tokens",
    "tone_map": "tone_map_compression_ratio",
}
SEEN: dict[str, np.ndarray] = {}


def main() -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    table = json.loads((HERE / "cases.json").read_text())
    chosen = sys.argv[1:] or list(table["cases"])
    target = HERE / "official.npz"
    vectors = dict(np.load(target)) if target.exists() and sys.argv[1:] else {}
    _draw_but_take_the_mean()
    _watched(SEEN)
    for name in chosen:
        found = run(table, table["cases"][name])
        vectors |= {f"{name}/{key}": array for key, array in found.items()}
        sys.stderr.write(f"{name}: { ({key: array.shape for key, array in found.items()}) }\n")
    np.savez_compressed(target, **vectors)


def run(table: dict[str, Any], case: dict[str, Any]) -> dict[str, np.ndarray]:
    """`latents` (1,C,f,h,w) of the last pass, `decoded` what the decoder is given, `frames` some of them."""
    values = {**table["common"], **case.get("request", {})}
    seed = values.pop("seed")
    with tempfile.TemporaryDirectory() as folder:
        pipeline = _pipeline(Path(folder), case["version"], "two_passes" in case)
    options = {**_renamed(values), **_given(case, values, getattr(pipeline, "video_pipeline", pipeline))}
    options |= _padded(values)
    if "two_passes" in case:
        passes = table["two passes"]  # AdaIN is not an option there, it is always whole
        second = _renamed(passes["second_pass"] | {"stochastic": values["stochastic"]})
        options |= {"downscale_factor": passes["downscale_factor"], "first_pass": {}, "second_pass": second}
    seed_everething(seed)
    frames = pipeline(
        **options,
        prompt=table["prompt"],
        generator=torch.Generator().manual_seed(seed),
        output_type="pt",
        is_video=True,
        vae_per_channel_normalize=True,
    ).images[0]
    some = _cropped(frames, values)[:, ::4, ::7, ::7].permute(1, 2, 3, 0).numpy()
    return {**SEEN, "frames": np.rint(some * 65535).astype(np.uint16)}


def _given(case: dict[str, Any], values: dict[str, Any], pipeline: Any) -> dict[str, Any]:
    """The case's files, read as the official command reads them."""
    size, padding = {name: values[name] for name in ("height", "width")}, _padding(values)
    options: dict[str, Any] = {}
    if "input_video" in case:
        file, frames = str(HERE / case["input_video"]), _padded(values)["num_frames"]
        options["media_items"] = load_media_file(file, **size, max_frames=frames, padding=padding)
    if "conditions" in case:
        files, starts, strengths = zip(*case["conditions"])
        options["conditioning_items"] = prepare_conditioning(
            [str(HERE / file) for file in files],
            strengths,
            starts,
            **size,
            num_frames=values["num_frames"],
            padding=padding,
            pipeline=pipeline,
        )
    return options


def _padded(values: dict[str, Any]) -> dict[str, int]:
    """The size that is generated, as `inference.infer` computes it."""
    sides = {name: ((values[name] - 1) // 32 + 1) * 32 for name in ("height", "width")}
    return {**sides, "num_frames": ((values["num_frames"] - 2) // 8 + 1) * 8 + 1}


def _padding(values: dict[str, Any]) -> tuple[int, int, int, int]:
    size = _padded(values)
    return calculate_padding(values["height"], values["width"], size["height"], size["width"])


def _cropped(frames: torch.Tensor, values: dict[str, Any]) -> torch.Tensor:
    """Frames (3,F,H,W) of the size asked for, as `inference.infer` crops them."""
    left, right, top, bottom = _padding(values)
    height, width = frames.shape[2:]
    return frames[:, : values["num_frames"], top : height - bottom, left : width - right]


def _renamed(values: dict[str, Any]) -> dict[str, Any]:
    return {NAMES.get(name, name): value for name, value in values.items()}


def _draw_but_take_the_mean() -> None:
    sample = DiagonalGaussianDistribution.sample

    def mean(self: Any, generator: Any = None) -> torch.Tensor:
        sample(self, generator)
        return self.mean

    DiagonalGaussianDistribution.sample = mean


def _watched(seen: dict[str, np.ndarray]) -> None:
    """From now on `seen` holds the latents after the last pass, and those that were decoded."""
    unpatchify, decode = SymmetricPatchifier.unpatchify, official.vae_decode

    def unpatchified(self: Any, *args: Any, **options: Any) -> torch.Tensor:
        latents = unpatchify(self, *args, **options)
        seen["latents"] = latents.numpy().copy()
        return latents

    def decoded(latents: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
        seen["decoded"] = latents.numpy().copy()
        return decode(latents, *args, **options)

    SymmetricPatchifier.unpatchify = unpatchified
    official.vae_decode = decoded


def _pipeline(folder: Path, version: str, two_passes: bool) -> Any:
    models = synthetic_models.tiny(version)
    file = folder / "model.safetensors"
    synthetic.write_official(file, models.transformer, models.vae, models.scheduler)
    synthetic.write_text_encoder(folder / "t5", models.text_encoder)
    tokenizer = T5TokenizerFast(
        tokenizer_file=str(folder / "t5" / "tokenizer" / "tokenizer.json"), extra_ids=0
    )
    pipeline = official.LTXVideoPipeline(
        tokenizer=tokenizer,
        text_encoder=T5EncoderModel.from_pretrained(folder / "t5"),
        vae=CausalVideoAutoencoder.from_pretrained(file).eval(),
        transformer=Transformer3DModel.from_pretrained(file).eval(),
        scheduler=RectifiedFlowScheduler.from_pretrained(file),
        patchifier=SymmetricPatchifier(patch_size=1),
        prompt_enhancer_image_caption_model=None,
        prompt_enhancer_image_caption_processor=None,
        prompt_enhancer_llm_model=None,
        prompt_enhancer_llm_tokenizer=None,
        allowed_inference_steps=models.scheduler.allowed_steps,
    )
    pipeline.set_progress_bar_config(disable=True)
    if not two_passes:
        return pipeline
    synthetic.write_upsampler(folder / "upsampler.safetensors", UPSAMPLER)
    upsampler = LatentUpsampler.from_pretrained(folder / "upsampler.safetensors").eval()
    return official.LTXMultiScalePipeline(pipeline, upsampler)


if __name__ == "__main__":
    main()
