"""Its checkpoints: one safetensors file with the networks' configs in the header, here of random weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from ltxrt.engines.errors import CheckpointError
from ltxrt.export import components
from ltxrt.export.checkpoint.fields import parse_json
from ltxrt.export.checkpoint.part import Part
from ltxrt.export.checkpoint.safetensors import SafetensorsFile
from ltxrt.export.graph.layers import stored_shapes
from two_streams.facts import NAME
from two_streams.networks import Denoiser, DenoiserConfig, Reader, ReaderConfig, Speaker, SpeakerConfig

CONFIGS = {"reader": ReaderConfig, "denoiser": DenoiserConfig, "speaker": SpeakerConfig}
MODULES = {"reader": Reader, "denoiser": Denoiser, "speaker": Speaker}


@dataclass(frozen=True)
class Release:
    name: str = "1.0"
    licence: str = "nobody's"


@dataclass(frozen=True)
class Checkpoint:
    """An opened one, as `ltxrt.export.checkpoint.part.Checkpoint`."""

    parts: Mapping[str, Part[Any]]
    source: str
    version: Release = field(default_factory=Release)
    family: str = NAME


def open_checkpoint(path: Path, check: bool = True) -> Checkpoint:
    file = SafetensorsFile(path)
    if file.metadata.get("family") != NAME:
        raise CheckpointError(f"{path}: is of another family")
    found = parse_json(file.metadata["config"], f"{path}: header config")
    parts = {
        name: Part(
            CONFIGS[name](**config),
            {n.removeprefix(f"{name}."): t for n, t in file.tensors.items() if n.startswith(f"{name}.")},
        )
        for name, config in found.items()
    }
    checkpoint = Checkpoint(parts, path.name)
    if check:
        components.check(checkpoint)
    return checkpoint


def write_random(path: Path, seed: int = 0) -> Path:
    """A checkpoint whose activations stay of order one."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, module in MODULES.items():
        for key, shape in stored_shapes(lambda name=name, module=module: module(CONFIGS[name]())).items():
            scale = max(shape[1:], default=16) ** -0.5
            tensors[f"{name}.{key}"] = torch.randn(shape, generator=generator) * scale + ("norm" in key)
    save_file(tensors, path, metadata=header())
    return path


def header() -> dict[str, str]:
    """A file's metadata."""
    configs = {name: asdict(config()) for name, config in CONFIGS.items()}
    return {"family": NAME, "config": json.dumps(configs)}
