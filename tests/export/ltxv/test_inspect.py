"""The lines of `ltx-export inspect`."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from ltxrt.engines.errors import CheckpointError
from ltxrt.export.checkpoint.safetensors import SafetensorsFile
from ltxrt.export.inspect import describe
from ltxrt.parity.synthetic import checkpoint as synthetic
from ltxrt.parity.synthetic.models import full, tiny


def test_full_size_file(tmp_path):
    models = full("0.9.1")
    path = tmp_path / "ltx-video-2b-v0.9.1.safetensors"
    synthetic.write_official(path, models.transformer, models.vae, models.scheduler, "BF16", fill="sparse")
    assert describe(path).splitlines() == [
        "ltx-video-2b-v0.9.1.safetensors: LTX-Video 0.9.1",
        "transformer: 1.923 B parameters, 3.85 GB, BF16 100.0%",
        "  28 layers, 32 heads × 64 = 2048 wide, text 4096 wide, plain rotary positions",
        "vae: 935 M parameters, 1.87 GB, BF16 100.0%",
        "  0.9.1 graph, 32×32 pixels × 8 frames per latent of 128 channels, "
        "decoder conditioned on timestep and 36 noise maps",
        "not in it: text encoder",
        "schedule: uniform, sd3 shift to 0.1",
        "licence: LTX-Video weights under their own RAIL-type licence; read it where you got them",
    ]


def test_doubt_and_fp8_are_said(tmp_path):
    models = tiny("0.9.6-distilled")
    path = tmp_path / "model.safetensors"
    synthetic.write_official(path, models.transformer, models.vae, models.scheduler)
    metadata, tensors = SafetensorsFile(path).metadata, load_file(path)
    assert "FP8" not in describe(path)
    cast = {n: t.to(torch.float8_e4m3fn) if ".ff." in n and t.ndim == 2 else t for n, t in tensors.items()}
    save_file(cast, tmp_path / "fp8.safetensors", metadata=dict(metadata))
    text = describe(tmp_path / "fp8.safetensors")
    assert "0.9.6-distilled or a later one of the same architecture" in text and "--model-version" in text
    assert text.count("warning: FP8 weights without scales") == 1
    assert "distilled to sigmas 1 0.9937" in text and "revenue threshold" in text


def test_errors_are_the_checkpoints(tmp_path):
    with pytest.raises(CheckpointError, match="no such file"):
        describe(tmp_path / "x.safetensors")
