"""The benchmark's models: random weights in the official layout, as a bundle and as a diffusers folder.

`tiny` and `medium` are whole releases with fewer and narrower blocks; `wide` is the 2B's transformer with its
own width and fewer layers. A model is one folder with `bundle/` and `diffusers/`, complete or absent.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ltxrt.engines.errors import InputError, LtxrtError
from ltxrt.export.ltxv.config import TextEncoderConfig, VaeBlock, VaeConfig
from ltxrt.parity.processes import module
from ltxrt.parity.synthetic import checkpoint as synthetic
from ltxrt.parity.synthetic import models as synthetic_models
from ltxrt.parity.synthetic.models import Models

VERSION = "0.9.5"
NARROWER = 4  # medium's autoencoder has the release's blocks at this part of their width
DESCRIPTIONS = {
    "tiny": "every component of the 0.9.5 release, a few hundred kilobytes",
    "medium": (
        "transformer of width 512 with 4 layers, T5 of width 1024 with 6 layers, the 0.9.5 autoencoder's own "
        f"blocks at 1/{NARROWER} of their width"
    ),
    "wide": "the 2B transformer's width (32 heads of 64) and text width (4096), as many layers as is said",
}


@dataclass(frozen=True)
class Model:
    """Which model: `name` of DESCRIPTIONS, and the number of layers of a wide one."""

    name: str
    layers: int = 0

    @property
    def folder(self) -> str:
        return f"{self.name}-{self.layers}-layers" if self.layers else self.name


def ensure(work: Path, model: Model) -> Path:
    """The model's folder in `work`, made where it is not there."""
    target = work / model.folder
    if (target / "bundle" / "bundle.json").is_file() and (target / "diffusers").is_dir():
        return target
    if target.exists():
        raise InputError(f"--work {work}: {model.folder} is there but no model of ours; give another folder")
    unfinished = work / f".{model.folder}.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    _make(unfinished, model)
    unfinished.rename(target)
    return target


def _make(folder: Path, model: Model) -> None:
    checkpoint, text_encoder = folder / "checkpoint" / "random.safetensors", folder / "checkpoint" / "t5"
    models = configs(model)
    synthetic.write_official(checkpoint, models.transformer, models.vae, models.scheduler)
    options: list[object] = ["--model-version", VERSION, "--output", folder / "bundle"]
    if model.name == "wide":
        options += ["--component", "transformer"]
    else:
        synthetic.write_text_encoder(text_encoder, models.text_encoder)
        options += ["--text-encoder", text_encoder]
    _run(module("ltxrt.export.cli", "onnx", checkpoint, *options))
    _run(module("ltxrt.parity.bench.models", folder, model.name, model.layers))
    shutil.rmtree(folder / "checkpoint")


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise LtxrtError(f"the benchmark's model could not be made: {last}")


def configs(model: Model) -> Models:
    """The configs of a model. InputError for no such name."""
    if model.name not in DESCRIPTIONS:
        raise InputError(f"no benchmark model is named {model.name!r}; they are {', '.join(DESCRIPTIONS)}")
    tiny, full = synthetic_models.tiny(VERSION), synthetic_models.full(VERSION)
    if model.name == "tiny":
        return tiny
    transformer = replace(
        full.transformer, layers=4, heads=8, cross_attention_width=512, caption_channels=1024
    )
    text_encoder = TextEncoderConfig(1024, 6, 16, 64, 2816, tiny.text_encoder.vocab_size)
    if model.name == "wide":
        transformer = replace(full.transformer, layers=model.layers)
    return replace(full, transformer=transformer, vae=_narrower(full.vae), text_encoder=text_encoder)


def _narrower(vae: VaeConfig) -> VaeConfig:
    def blocks(wide: tuple[VaeBlock, ...]) -> tuple[VaeBlock, ...]:
        return tuple(
            replace(b, in_channels=b.in_channels // NARROWER, out_channels=b.out_channels // NARROWER)
            for b in wide
        )

    return replace(vae, encoder_blocks=blocks(vae.encoder_blocks), decoder_blocks=blocks(vae.decoder_blocks))


def write_diffusers(folder: Path, model: Model) -> None:
    """The checkpoint's weights as diffusers' own folder, through diffusers' own converters."""
    from diffusers import LTXVideoTransformer3DModel
    from diffusers.loaders.single_file_utils import convert_ltx_transformer_checkpoint_to_diffusers
    from safetensors.torch import load_file

    from ltxrt.parity.reference.diffusers import transformer_config

    models, output = configs(model), folder / "diffusers"
    tensors = load_file(folder / "checkpoint" / "random.safetensors")
    names = {n: t for n, t in tensors.items() if n.startswith("model.diffusion_model.")}
    transformer = _empty(LTXVideoTransformer3DModel, transformer_config(models.transformer))
    converted = convert_ltx_transformer_checkpoint_to_diffusers(names)
    transformer.load_state_dict(converted, strict=True, assign=True)
    if model.name == "wide":
        transformer.save_pretrained(output / "transformer")
        return
    _write_pipeline(folder / "checkpoint", output, models, transformer, tensors)


def _write_pipeline(
    checkpoint: Path, output: Path, models: Models, transformer: Any, tensors: dict[str, Any]
) -> None:
    import torch
    from diffusers import FlowMatchEulerDiscreteScheduler, LTXPipeline
    from transformers import T5EncoderModel, T5TokenizerFast

    from ltxrt.parity.reference import diffusers

    vae = diffusers.vae(VERSION, models.vae)
    named = {n: t for n, t in tensors.items() if n.startswith("vae.")}
    vae.load_state_dict(diffusers.to_diffusers_vae(named, VERSION), strict=True)
    text_encoder = T5EncoderModel.from_pretrained(checkpoint / "t5", dtype=torch.float32).eval()
    tokenizer_file = checkpoint / "t5" / "tokenizer" / "tokenizer.json"
    tokenizer = T5TokenizerFast(tokenizer_file=str(tokenizer_file), extra_ids=0)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=1.0)  # the 0.9.5 release does not shift
    LTXPipeline(scheduler, vae, text_encoder, tokenizer, transformer).save_pretrained(output)


def _empty(cls: Any, options: dict[str, Any]) -> Any:
    """A module without memory for its weights: a wide one would be drawn at random first."""
    import torch

    with torch.device("meta"):
        return cls(**options).eval()


if __name__ == "__main__":
    write_diffusers(Path(sys.argv[1]), Model(sys.argv[2], int(sys.argv[3])))
