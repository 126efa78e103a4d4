"""Models of random weights for the parts: modules filled on the device, and bundles by the export command."""

from __future__ import annotations

import dataclasses
import math
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ltxrt.engines.bundle import Bundle, read_bundle
from ltxrt.export.graph.layers import transposed_weights
from ltxrt.export.graph.trace import PRECISIONS, default_dtype
from ltxrt.export.ltxv.components import COMPONENTS
from ltxrt.parity.environment import measure, module, peak_memory
from ltxrt.parity.gpu.parts import Place
from ltxrt.parity.synthetic import checkpoint as synthetic
from ltxrt.parity.synthetic import models as synthetic_models
from ltxrt.parity.synthetic.models import Models

VERSION = "0.9.5"
PARTS = {
    "transformer": "transformer",
    "text_encoder": "text_encoder",
    "vae_encoder": "vae",
    "vae_decoder": "vae",
}


def models(place: Place) -> Models:
    """The release's configs at full size, or tiny ones for a trial; deep enough for FP8's middle blocks."""
    if not place.cpu:
        return synthetic_models.full(VERSION)
    tiny = synthetic_models.tiny(VERSION)
    transformer = dataclasses.replace(
        tiny.transformer, layers=3, heads=2, head_size=64, cross_attention_width=128
    )
    return dataclasses.replace(tiny, transformer=transformer)


def filled(component: str, config: Any, precision: str, device: str, seed: int = 0) -> nn.Module:
    """The traced module with random weights, drawn on the device: the same in every precision of a seed."""
    row = COMPONENTS[component]
    form = row.form(precision)
    with default_dtype(PRECISIONS[precision]), torch.device("meta"):
        empty = row.module(form.config(config))
    filled_module = empty.to_empty(device=device).eval()
    generator = torch.Generator(device).manual_seed(seed)
    transposed, scales = transposed_weights(filled_module), form.scales(config)
    with torch.no_grad():
        for name, parameter in filled_module.named_parameters():
            values = _values(name, parameter, name in transposed, generator)
            parameter.copy_(values * scales.get(name, 1.0))
        buffers = dict(filled_module.named_buffers())
        for name, constant in row.constants(config).items():
            buffers[name].copy_(constant)
    return filled_module


def _values(name: str, parameter: Tensor, transposed: bool, generator: torch.Generator) -> Tensor:
    """As `ltxrt.parity.synthetic.checkpoint` distributes them, in fp32."""
    shape = tuple(parameter.shape)
    mean, deviation = synthetic.distribution(name, shape[::-1] if transposed else shape)
    drawn = torch.randn(shape, generator=generator, device=parameter.device, dtype=torch.float32)
    values = drawn * deviation + mean
    return values.abs() if name.endswith("std-of-means") else values


def transformer_feed(
    config: Any, batch: int, tokens: int, text: int, device: str, seed: int = 0
) -> dict[str, Tensor]:
    """Inputs of the contract's shapes, fp32, with proper rotations; nothing is masked or perturbed."""
    generator = torch.Generator(device).manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=device)

    angles = normal(1, tokens, config.width // 2) * math.pi
    return {
        "latents": normal(batch, tokens, config.in_channels),
        "timesteps": torch.full((batch, 1), 0.7, device=device),
        "timestep_index": torch.zeros((batch, tokens), dtype=torch.int64, device=device),
        "context": normal(batch, text, config.caption_channels),
        "context_mask": torch.ones((batch, text), dtype=torch.bool, device=device),
        "rope_cos": torch.cos(angles),
        "rope_sin": torch.sin(angles),
        "perturbation_mask": torch.ones((config.layers, 3, batch), dtype=torch.bool, device=device),
    }


def bundle(
    place: Place, name: str, components: tuple[str, ...], precisions: tuple[str, ...], small: bool
) -> Bundle:
    """A bundle in the work folder with these components in these precisions, made where it is not there."""
    target = place.work / name
    checkpoint, text_encoder = checkpoint_of(place, small)
    if not (target / "bundle.json").is_file():
        shutil.rmtree(target, ignore_errors=True)
    have = read_bundle(target).components if target.exists() else {}
    for precision in precisions:
        missing = [c for c in components if precision not in have.get(c, {}) and _makes(c, precision)]
        if missing:
            options = [option for component in missing for option in ("--component", component)]
            options += ["--uncalibrated"] if precision.startswith("fp8") else []
            options += ["--text-encoder", str(text_encoder)] if "text_encoder" in missing else []
            made = ("onnx", checkpoint, "--model-version", VERSION, "--precision", precision, *options)
            measure(module("ltxrt.export.cli", *made, "--output", target))
    return read_bundle(target)


def _makes(component: str, precision: str) -> bool:
    return component == "transformer" or not precision.startswith("fp8")


def checkpoint_of(place: Place, small: bool) -> tuple[Path, Path]:
    """A checkpoint of random weights and its text encoder's folder; full size is bf16 and has no T5."""
    folder = place.work / ("small" if small else "full")
    file, text_encoder = folder / "model.safetensors", folder / "t5"
    chosen = models(dataclasses.replace(place, cpu=place.cpu or small))
    if not file.is_file():
        kind = "F32" if small or place.cpu else "BF16"
        synthetic.write_official(file, chosen.transformer, chosen.vae, chosen.scheduler, kind)
    if (small or place.cpu) and not (text_encoder / "tokenizer").is_dir():
        synthetic.write_text_encoder(text_encoder, chosen.text_encoder)
    return file, text_encoder


def taken_bytes(place: Place) -> int:
    """Bytes of the GPU in use, or this process's peak resident bytes."""
    if place.cpu:
        return peak_memory()
    free, total = torch.cuda.mem_get_info()
    return int(total - free)
