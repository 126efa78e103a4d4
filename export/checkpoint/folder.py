"""Tensors of a model folder in the layout of diffusers and transformers: one file, or shards and an index."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ltxrt.engines.errors import CheckpointError
from ltxrt.export.checkpoint.fields import load_json
from ltxrt.export.checkpoint.safetensors import SafetensorsFile, StoredTensor

STEMS = ("diffusion_pytorch_model", "model")
_MAX_SHARDS = 1000


def folder_tensors(folder: Path) -> dict[str, StoredTensor]:
    """All tensors of a model folder, by their stored names."""
    for stem in STEMS:
        index = folder / f"{stem}.safetensors.index.json"
        if index.is_file():
            return _sharded(folder, index)
        single = folder / f"{stem}.safetensors"
        if single.is_file():
            return SafetensorsFile(single).tensors
    pickles = sorted(p.name for p in folder.glob("*.bin"))
    if pickles:
        raise CheckpointError(f"{folder}: has only pickles ({pickles[0]}); convert them to safetensors first")
    names = " or ".join(f"{s}.safetensors" for s in STEMS)
    raise CheckpointError(f"{folder}: has no {names} and no shard index; is the download complete?")


def _sharded(folder: Path, index: Path) -> dict[str, StoredTensor]:
    data = load_json(index)
    shards, where = shard_names(data, str(index)), data["weight_map"]
    tensors: dict[str, StoredTensor] = {}
    for shard in shards:
        for name, tensor in SafetensorsFile(folder / shard).tensors.items():
            if where.get(name) != shard:
                raise CheckpointError(
                    f"{index}: does not list {name} of {shard}; index and shards do not match"
                )
            tensors[name] = tensor
    missing = sorted(where.keys() - tensors.keys())
    if missing:
        raise CheckpointError(
            f"{index}: {missing[0]} is not in {where[missing[0]]}; index and shards do not match"
        )
    return tensors


def shard_names(data: Mapping[str, Any], index: str) -> list[str]:
    """The files that an index names, sorted. Raises CheckpointError for an index that is none."""
    where = data.get("weight_map")
    if not isinstance(where, dict) or not where:
        raise CheckpointError(f"{index}: has no weight_map")
    shards = sorted({_shard_name(index, shard) for shard in where.values()})
    if len(shards) > _MAX_SHARDS:
        raise CheckpointError(f"{index}: names {len(shards)} shards; at most {_MAX_SHARDS} are read")
    return shards


def _shard_name(index: str, shard: Any) -> str:
    """A shard's file name; CheckpointError for a path, because the index is untrusted."""
    if (
        not isinstance(shard, str)
        or Path(shard).name != shard
        or "\\" in shard
        or not shard.endswith(".safetensors")
    ):
        raise CheckpointError(
            f"{index}: shard {shard!r:.80} must be the name of a .safetensors file in its folder"
        )
    return shard
