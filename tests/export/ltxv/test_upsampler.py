"""Latent upsamplers: opened, refused, and held against diffusers' on the same weights."""

import json

import numpy as np
import pytest
import torch
from diffusers.pipelines.ltx.modeling_latent_upsampler import LTXLatentUpsamplerModel
from safetensors.torch import load_file, save_file

from ltxrt.engines.backend import load_engine
from ltxrt.engines.bundle import read_bundle
from ltxrt.engines.errors import CheckpointError
from ltxrt.export.cli import main as export
from ltxrt.export.ltxv.config import UpsamplerConfig
from ltxrt.export.ltxv.open import open_checkpoint
from ltxrt.export.ltxv.upsampler import open_upsampler

KINDS = ["latent_upsampler", "temporal_upsampler"]


def reference(file, kind):
    """diffusers' model with the file's weights."""
    temporal = kind == "temporal_upsampler"
    model = LTXLatentUpsamplerModel(16, 64, 2, 3, not temporal, temporal)
    model.load_state_dict(load_file(file), strict=True)
    return model.eval()


def statistics(checkpoint):
    tensors = load_file(checkpoint / "model.safetensors")
    rows = (tensors[f"vae.per_channel_statistics.{n}-of-means"] for n in ("mean", "std"))
    return tuple(row.view(1, -1, 1, 1, 1) for row in rows)


def error(ours, theirs):
    assert ours.shape == theirs.shape
    return np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(1, 3, 4, 5), (2, 1, 2, 3), (1, 5, 3, 7)])
def test_graphs_match_diffusers(kind, shape, two_pass_bundle, tiny_checkpoint, tiny_upsampler):
    latents = torch.randn(shape[0], 16, *shape[1:], generator=torch.Generator().manual_seed(1))
    mean, std = statistics(tiny_checkpoint("0.9.5"))
    with torch.no_grad():
        theirs = (reference(tiny_upsampler(kind), kind)(latents * std + mean) - mean) / std
    with load_engine(read_bundle(two_pass_bundle), kind) as engine:
        ours = engine(latents=latents.numpy())["upsampled"]
    assert error(ours, theirs.numpy()) <= 1e-4


def test_fp16_is_near_fp32(run_command, two_pass_bundle, tiny_checkpoint, tiny_upsampler, tmp_path):
    file, component = tiny_checkpoint("0.9.5") / "model.safetensors", "latent_upsampler"
    options = ("--upsampler", tiny_upsampler(component), "--component", component, "--precision", "fp16")
    run_command(export, "onnx", file, *options, "--output", tmp_path / "b", "--model-version", "0.9.5")
    latents = np.random.default_rng(0).standard_normal((1, 16, 3, 4, 5), dtype=np.float32)
    outputs = [
        load_engine(read_bundle(folder), "latent_upsampler")(latents=latents)["upsampled"]
        for folder in (tmp_path / "b", two_pass_bundle)
    ]
    assert 0 < error(*outputs) <= 5e-3


@pytest.mark.parametrize("kind", KINDS)
def test_both_layouts_open(kind, tiny_upsampler, tmp_path):
    model = reference(tiny_upsampler(kind), kind)
    model.save_pretrained(tmp_path / "latent_upsampler")
    wanted = UpsamplerConfig(16, 64, 2, temporal=kind == "temporal_upsampler")
    found = [open_upsampler(path) for path in (tiny_upsampler(kind), tmp_path, tmp_path / "latent_upsampler")]
    assert [config for config, _ in found] == [wanted] * 3
    assert all({n: t.shape for n, t in tensors.items()} == {n: t.shape for n, t in found[0][1].items()}
               for _, tensors in found)  # fmt: skip


def written(path, config, tensors=None):
    tensors = tensors or {"initial_conv.weight": torch.zeros(1)}
    save_file(tensors, path, {} if config is None else {"config": json.dumps(config)})
    return path


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"dims": 2}, "dims 2, spatial True, temporal False is of no release"),
        ({"temporal_upsample": True}, "dims 3, spatial True, temporal True is of no release"),
        ({"spatial_upsample": False}, "spatial False, temporal False is of no release"),
        ({"mid_channels": "64"}, "mid_channels is '64'; it must be a whole number"),
        (None, "is not a latent upsampler"),
    ],
)
def test_other_files_are_refused(tmp_path, config, message):
    with pytest.raises(CheckpointError, match=message):
        open_upsampler(written(tmp_path / "u.safetensors", config))


def test_a_main_checkpoint_is_no_upsampler(tiny_checkpoint):
    with pytest.raises(CheckpointError, match="is not a latent upsampler"):
        open_upsampler(tiny_checkpoint("0.9.5") / "model.safetensors")


def test_it_must_fit_the_checkpoint(tiny_checkpoint, tiny_upsampler, tmp_path):
    main = tiny_checkpoint("0.9.5") / "model.safetensors"
    spatial = tiny_upsampler("latent_upsampler")
    tensors = load_file(spatial)
    sizes = {"in_channels": 16, "mid_channels": 64, "num_blocks_per_stage": 2}
    bigger = written(tmp_path / "c.safetensors", {**sizes, "in_channels": 32}, tensors)
    with pytest.raises(CheckpointError, match="upsamples 32 latent channels but the VAE has 16"):
        open_checkpoint(main, version="0.9.5", upsamplers=[bigger])
    with pytest.raises(CheckpointError, match="upsamplers of one kind; give one"):
        open_checkpoint(main, version="0.9.5", upsamplers=[spatial, spatial])
    del tensors["final_conv.bias"]
    cut = written(tmp_path / "cut.safetensors", sizes, tensors)
    with pytest.raises(
        CheckpointError, match=r"upsampler: tensors do not match .*1 missing \(final_conv.bias"
    ):
        open_checkpoint(main, version="0.9.5", upsamplers=[cut])
