"""The benchmark's models: random weights in the official layout, as a bundle and as a diffusers folder.

`tiny` and `medium` are whole releases with fewer and narrower blocks; `wide` is the 2B's transformer with its
own width and fewer layers. A model is one folder with `bundle/` and `diffusers/`, complete or absent.
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from ltxrt.engines.errors import InputError
from ltxrt.export.ltxv.config import TextEncoderConfig, VaeBlock, VaeConfig
from ltxrt.parity.environment import call, module
from ltxrt.parity.synthetic import checkpoint as synthetic
from ltxrt.parity.synthetic import models as releases
from ltxrt.parity.synthetic.models import Models

VERSION = "0.9.5"
NARROWER = 4  # the medium autoencoder has the release's blocks at this part of their width
DESCRIPTIONS = {
    "tiny": "every component of the 0.9.5 release, a few hundred kilobytes",
    "medium": (
        "transformer of width 512 with 4 layers, T5 of width 1024 with 6 layers, the 0.9.5 autoencoder's own "
        f"blocks at 1/{NARROWER} of their width"
    ),
    "wide": "the 2B transformer's width (32 heads of 64) and text width (4096), reduced to the given layers",
}


@dataclass(frozen=True)
class Model:
    """Which model: `name` of DESCRIPTIONS, and the number of layers of a wide one."""

    name: str
    layers: int = 0

    @property
    def folder(self) -> str:
        return f"{self.name}-{self.layers}-layers" if self.layers else self.name

    def configs(self) -> Models:
        """The configs of its parts. InputError for no such name."""
        if self.name not in DESCRIPTIONS:
            raise InputError(f"no benchmark model is named {self.name!r}; they are {', '.join(DESCRIPTIONS)}")
        tiny, full = releases.tiny(VERSION), releases.full(VERSION)
        if self.name == "tiny":
            return tiny
        transformer = replace(
            full.transformer, layers=4, heads=8, cross_attention_width=512, caption_channels=1024
        )
        if self.name == "wide":
            transformer = replace(full.transformer, layers=self.layers)
        text_encoder = TextEncoderConfig(1024, 6, 16, 64, 2816, tiny.text_encoder.vocab_size)
        return replace(full, transformer=transformer, vae=_narrower(full.vae), text_encoder=text_encoder)


def _narrower(vae: VaeConfig) -> VaeConfig:
    def narrower(block: VaeBlock) -> VaeBlock:
        widths = block.in_channels // NARROWER, block.out_channels // NARROWER
        return replace(block, in_channels=widths[0], out_channels=widths[1])

    return replace(
        vae,
        encoder_blocks=tuple(map(narrower, vae.encoder_blocks)),
        decoder_blocks=tuple(map(narrower, vae.decoder_blocks)),
    )


def ensure(work: Path, model: Model) -> Path:
    """The model's folder in `work`, made where it is not there."""
    target = work / model.folder
    if (target / "bundle" / "bundle.json").is_file() and (target / "diffusers").is_dir():
        return target
    if target.exists():
        raise InputError(
            f"--work {work}: {model.folder} exists and is not a benchmark model; give another folder"
        )
    unfinished = work / f".{model.folder}.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    _make(unfinished, model)
    unfinished.rename(target)
    return target


def _make(folder: Path, model: Model) -> None:
    checkpoint, text_encoder = folder / "checkpoint" / "random.safetensors", folder / "checkpoint" / "t5"
    configs = model.configs()
    synthetic.write_official(checkpoint, configs.transformer, configs.vae, configs.scheduler)
    options: list[object] = ["--model-version", VERSION, "--output", folder / "bundle"]
    if model.name == "wide":
        options += ["--component", "transformer"]
    else:
        synthetic.write_text_encoder(text_encoder, configs.text_encoder)
        options += ["--text-encoder", text_encoder]
    call(module("ltxrt.export.cli", "onnx", checkpoint, *options))
    call(module("ltxrt.parity.bench.models", folder, model.name, model.layers))
    shutil.rmtree(folder / "checkpoint")


def write_diffusers(folder: Path, model: Model) -> None:
    """The checkpoint's weights as diffusers' own folder, through diffusers' own converters."""
    import torch
    from diffusers import FlowMatchEulerDiscreteScheduler, LTXPipeline, LTXVideoTransformer3DModel
    from diffusers.loaders.single_file_utils import convert_ltx_transformer_checkpoint_to_diffusers
    from safetensors.torch import load_file
    from transformers import T5EncoderModel, T5TokenizerFast

    from ltxrt.parity.ltxv import diffusers

    configs, output, checkpoint = model.configs(), folder / "diffusers", folder / "checkpoint"
    tensors = load_file(checkpoint / "random.safetensors")
    weights = {n: t for n, t in tensors.items() if n.startswith("model.diffusion_model.")}
    with torch.device("meta"):  # random weights of a wide one would be drawn for nothing
        transformer = LTXVideoTransformer3DModel(**diffusers.transformer_config(configs.transformer)).eval()
    converted = convert_ltx_transformer_checkpoint_to_diffusers(weights)
    transformer.load_state_dict(converted, strict=True, assign=True)
    if model.name == "wide":
        transformer.save_pretrained(output / "transformer")
        return
    vae = diffusers.vae(VERSION, configs.vae)
    named = {n: t for n, t in tensors.items() if n.startswith("vae.")}
    vae.load_state_dict(diffusers.to_diffusers_vae(named, VERSION), strict=True)
    text_encoder = T5EncoderModel.from_pretrained(checkpoint / "t5", dtype=torch.float32).eval()
    tokenizer_file = checkpoint / "t5" / "tokenizer" / "tokenizer.json"
    tokenizer = T5TokenizerFast(tokenizer_file=str(tokenizer_file), extra_ids=0)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=1.0)  # the 0.9.5 release does not shift
    LTXPipeline(scheduler, vae, text_encoder, tokenizer, transformer).save_pretrained(output)


if __name__ == "__main__":
    write_diffusers(Path(sys.argv[1]), Model(sys.argv[2], int(sys.argv[3])))
