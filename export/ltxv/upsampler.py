"""Opens a latent upsampler: an official file with its flat config in the header, or diffusers' folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ltxrt.engines.errors import CheckpointError
from ltxrt.export.checkpoint.fields import Fields, load_json, parse_json
from ltxrt.export.checkpoint.folder import folder_tensors
from ltxrt.export.checkpoint.safetensors import SafetensorsFile, StoredTensor
from ltxrt.export.ltxv.config import UpsamplerConfig

Tensors = dict[str, StoredTensor]


def open_upsampler(path: Path) -> tuple[UpsamplerConfig, Tensors]:
    """The config and tensors of the upsampler at `path`, a file, its folder or the folder that contains
    `latent_upsampler/`. Raises CheckpointError for anything else, and for an unreleased kind of upsampler.
    """
    if path.is_dir():
        folder = path / "latent_upsampler" if (path / "latent_upsampler").is_dir() else path
        config = load_json(folder / "config.json")
        if config.get("_class_name") != "LTXLatentUpsamplerModel":
            raise CheckpointError(
                f"{folder}: config.json is not a latent upsampler's; give the folder or file of one"
            )
        return _config(config, folder), dict(folder_tensors(folder))
    file = SafetensorsFile(path)
    if "initial_conv.weight" not in file.tensors or "config" not in file.metadata:
        raise CheckpointError(
            f"{path}: is not a latent upsampler (no initial_conv, or no config in its header); "
            "give ltxv-spatial-upscaler-….safetensors"
        )
    return _config(parse_json(file.metadata["config"], f"{path}: header config"), path), dict(file.tensors)


def _config(data: Mapping[str, Any], where: Path) -> UpsamplerConfig:
    """The config's fields, with the official class's defaults."""
    spatial, temporal = data.get("spatial_upsample", True), data.get("temporal_upsample", False)
    if spatial is temporal or data.get("dims", 3) != 3:
        raise CheckpointError(
            f"{where}: an upsampler with dims {data.get('dims', 3)}, spatial {spatial}, temporal {temporal} "
            "is of no release; known are spatial or temporal ones of 3 dims"
        )
    fields = Fields(data, str(where))
    return UpsamplerConfig(
        latent_channels=fields.integer("in_channels", 128),
        mid_channels=fields.integer("mid_channels", 512),
        blocks=fields.integer("num_blocks_per_stage", 4),
        temporal=bool(temporal),
    )
