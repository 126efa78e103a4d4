"""Facts for the runtime."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ltxrt.engines.errors import CheckpointError
from ltxrt.engines.families.ltxv.facts import NoiseMaps
from ltxrt.export.checkpoint.safetensors import SafetensorsFile
from ltxrt.export.ltxv import facts as layout_facts
from ltxrt.parity.synthetic.models import full, tiny


def statistics(tmp_path, mean, std):
    path = tmp_path / "vae.safetensors"
    path.unlink(missing_ok=True)
    save_file({layout_facts.LATENTS_MEAN: mean, layout_facts.LATENTS_STD: std}, path)
    return SafetensorsFile(path).tensors


def test_noise_maps_of_the_releases():
    assert layout_facts.noise_maps(full("0.9.1").vae) == (
        NoiseMaps(2, 14),
        NoiseMaps(4, 12),
        NoiseMaps(8, 10),
    )
    assert layout_facts.noise_maps(full("0.9.0").vae) == layout_facts.noise_maps(full("0.9.5").vae) == ()


def test_vae_facts(tmp_path):
    mean, std = torch.randn(16), torch.rand(16) + 0.5
    facts = layout_facts.vae_facts(tiny("0.9.1").vae, statistics(tmp_path, mean.bfloat16(), std))
    assert facts.latents_mean == tuple(mean.bfloat16().float().tolist())
    np.testing.assert_array_equal(facts.latents_std, std.numpy())
    assert (facts.spatial_compression, facts.temporal_compression, facts.timestep_conditioning) == (
        32,
        8,
        True,
    )


def test_unusable_statistics(tmp_path):
    config = tiny("0.9.1").vae
    with pytest.raises(CheckpointError, match="std-of-means must be finite and positive"):
        layout_facts.vae_facts(config, statistics(tmp_path, torch.zeros(16), torch.zeros(16)))
    with pytest.raises(CheckpointError, match="mean-of-means must be finite"):
        layout_facts.vae_facts(config, statistics(tmp_path, torch.full((16,), torch.nan), torch.ones(16)))
    with pytest.raises(CheckpointError, match="has not 16 values"):
        layout_facts.vae_facts(config, statistics(tmp_path, torch.zeros(8), torch.ones(16)))


def test_other_facts():
    models = full("0.9.8-13b-dev")
    facts = layout_facts.transformer_facts(models.transformer)
    assert facts.width == 4096 and facts.causal_rope and facts.rope_max_positions == (20.0, 2048.0, 2048.0)
    assert (
        layout_facts.transformer_facts(replace(models.transformer, timestep_scale=1.0)).timestep_scale == 1.0
    )
    assert layout_facts.text_encoder_facts(models.text_encoder).vocab_size == 32128
