"""diffusers configs against ours, with the reference's own configs as the source."""

import pytest
from diffusers import AutoencoderKLLTXVideo, FlowMatchEulerDiscreteScheduler, LTXVideoTransformer3DModel

from ltxrt.engines.errors import CheckpointError
from ltxrt.engines.families.ltxv.facts import SchedulerFacts
from ltxrt.export.ltxv import diffusers
from ltxrt.parity.synthetic.models import full, tiny

GRAPHS = ["0.9.0", "0.9.1", "0.9.5"]


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("models", [full, tiny])
def test_vae(reference, graph, models):
    config = models(graph).vae
    assert diffusers.vae_config(reference.vae_config(graph, config)) == config


def test_defaults_are_the_constructors():
    assert diffusers.vae_config({}) == full("0.9.0").vae
    assert diffusers.transformer_config({}) == full("0.9.0").transformer


def test_saved_configs_are_read(reference, tmp_path):
    models = tiny("0.9.5")
    vae = AutoencoderKLLTXVideo(**reference.vae_config("0.9.5", models.vae))
    transformer = LTXVideoTransformer3DModel(**reference.transformer_config(models.transformer))
    assert diffusers.vae_config(dict(vae.config)) == models.vae
    read = diffusers.transformer_config(dict(transformer.config))
    assert read.causal_rope is False and read.layers == 2 and read.width == 64
    encoder = reference.t5_config(models.text_encoder).to_dict()
    assert diffusers.text_encoder_config(encoder) == models.text_encoder


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"decoder_causal": True}, "decoder_causal is True"),
        ({"upsample_factor": [3, 3, 3, 3]}, "upsample_factor 3 does not divide 512 and 512"),
        (
            {"downsample_type": [["conv"]] * 4, "down_block_types": ["LTXVideo095DownBlock3D"]},
            "not those of a rel",
        ),
        ({"patch_size_t": 2}, "patch_size_t is 2"),
        ({"block_out_channels": [8, 8, 8, 8]}, "not those of a released VAE"),
        ({"layers_per_block": [1, 1]}, "inconsistent lengths"),
        ({"timestep_conditioning": True}, "not those of a released VAE"),
    ],
)
def test_vae_refusals(change, match):
    with pytest.raises(CheckpointError, match=match):
        diffusers.vae_config(change)


def test_text_encoder_refusals(reference):
    t5 = reference.t5_config(tiny("0.9.0").text_encoder).to_dict()
    with pytest.raises(CheckpointError, match="model_type is 'umt5'"):
        diffusers.text_encoder_config(t5 | {"model_type": "umt5"})
    with pytest.raises(CheckpointError, match="feed_forward_proj is 'relu'"):
        diffusers.text_encoder_config(t5 | {"feed_forward_proj": "relu"})
    with pytest.raises(CheckpointError, match=r"is it T5 v1\.1's"):
        diffusers.text_encoder_config({})


def test_scheduler():
    first = FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True,
        base_shift=0.95,
        max_shift=2.05,
        base_image_seq_len=1024,
        max_image_seq_len=4096,
        shift_terminal=0.1,
    )
    assert diffusers.scheduler_facts(dict(first.config)) == SchedulerFacts("uniform", "sd3", 0.1, None)
    later = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=False)
    assert diffusers.scheduler_facts(dict(later.config)).sampler == "linear_quadratic"
    with pytest.raises(CheckpointError, match=r"base_shift is 0\.5"):
        diffusers.scheduler_facts(dict(first.config) | {"base_shift": 0.5})
