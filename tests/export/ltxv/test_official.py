"""Official config JSON to resolved configs and back."""

import pytest

from ltxrt.engines.errors import CheckpointError
from ltxrt.engines.families.ltxv.facts import SchedulerFacts
from ltxrt.export.ltxv import official
from ltxrt.export.ltxv.config import VaeBlock
from ltxrt.export.ltxv.vae_graphs import vae_graph
from ltxrt.parity.synthetic.models import full, tiny

# The first release's header (official diffusers_config_mapping.py): one shared block list.
FIRST_VAE = {
    "_class_name": "CausalVideoAutoencoder", "dims": 3, "in_channels": 3, "out_channels": 3,
    "latent_channels": 128,
    "blocks": [
        ["res_x", 4], ["compress_all", 1], ["res_x_y", 1], ["res_x", 3], ["compress_all", 1], ["res_x_y", 1],
        ["res_x", 3], ["compress_all", 1], ["res_x", 3], ["res_x", 4],
    ],
    "scaling_factor": 1.0, "norm_layer": "pixel_norm", "patch_size": 4, "latent_log_var": "uniform",
    "use_quant_conv": False, "causal_decoder": False,
}  # fmt: skip
FIRST_TRANSFORMER = {
    "_class_name": "Transformer3DModel", "_name_or_path": "PixArt-alpha/PixArt-XL-2-256x256",
    "activation_fn": "gelu-approximate", "attention_bias": True, "attention_head_dim": 64,
    "attention_type": "default", "caption_channels": 4096, "cross_attention_dim": 2048,
    "double_self_attention": False, "dropout": 0.0, "in_channels": 128, "norm_elementwise_affine": False,
    "norm_eps": 1e-06, "norm_num_groups": 32, "num_attention_heads": 32, "num_embeds_ada_norm": 1000,
    "num_layers": 28, "num_vector_embeds": None, "only_cross_attention": False, "out_channels": 128,
    "project_to_2d_pos": True, "upcast_attention": False, "use_linear_projection": False,
    "qk_norm": "rms_norm", "standardization_norm": "rms_norm", "positional_embedding_type": "rope",
    "positional_embedding_theta": 10000.0, "positional_embedding_max_pos": [20, 2048, 2048],
    "timestep_scale_multiplier": 1000,
}  # fmt: skip


def test_first_release_headers():
    assert official.transformer_config(FIRST_TRANSFORMER) == full("0.9.0").transformer
    config = official.vae_config(FIRST_VAE)
    assert config == full("0.9.0").vae
    assert vae_graph(config) == "0.9.0"
    assert config.decoder_blocks[:5] == (
        VaeBlock("res", 512, 512, 4),
        VaeBlock("res", 512, 512, 3),
        VaeBlock("depth_to_space", 512, 512, stride=(2, 2, 2)),
        VaeBlock("res", 512, 512, 3),
        VaeBlock("res_xy", 512, 256),
    )


def test_later_vae_graphs():
    second, third = full("0.9.1").vae, full("0.9.5").vae
    assert (vae_graph(second), vae_graph(third)) == ("0.9.1", "0.9.5")
    assert second.encoder_blocks == full("0.9.0").vae.encoder_blocks
    assert [b.out_channels for b in second.decoder_blocks] == [1024, 512, 512, 256, 256, 128, 128]
    assert [(b.layers, b.inject_noise) for b in second.decoder_blocks if b.kind == "res"] == [
        (8, False), (7, True), (6, True), (5, True),
    ]  # fmt: skip
    assert [b.stride for b in third.encoder_blocks[1::2]] == [(1, 2, 2), (2, 1, 1), (2, 2, 2), (2, 2, 2)]
    assert [b.out_channels for b in third.encoder_blocks[1::2]] == [256, 512, 1024, 2048]
    for config in (second, third):
        assert (config.spatial_compression, config.temporal_compression) == (32, 8)


@pytest.mark.parametrize("version", ["0.9.0", "0.9.1", "0.9.5", "0.9.8-13b-distilled"])
@pytest.mark.parametrize("models", [full, tiny])
def test_round_trip(version, models):
    config = models(version)
    assert (
        official.transformer_config(official.official_transformer(config.transformer)) == config.transformer
    )
    assert official.vae_config(official.official_vae(config.vae)) == config.vae
    facts = config.scheduler
    assert official.scheduler_facts(official.official_scheduler(facts), facts.allowed_steps) == facts


def test_every_block_name_round_trips():
    data = FIRST_VAE | {
        "encoder_blocks": [
            ["compress_time", 1], ["compress_space", 1], ["compress_all_x_y", {"multiplier": 3}],
            ["compress_time_res", {"multiplier": 2}], ["compress_space_res", {}], ["compress_all_res", {}],
        ],
        "decoder_blocks": [
            ["res_x", 1], ["compress_time", 1], ["compress_space", 1], ["res_x_y", {"multiplier": 4}],
        ],
    }  # fmt: skip
    config = official.vae_config(data)
    assert config.encoder_blocks[2] == VaeBlock("conv", 128, 384, stride=(2, 2, 2))
    assert [b.in_channels for b in config.decoder_blocks] == [512, 128, 128, 128]
    assert official.vae_config(official.official_vae(config)) == config
    assert vae_graph(config) is None


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"norm_layer": "group_norm"}, "norm_layer is 'group_norm'"),
        ({"causal_decoder": True}, "causal_decoder is True"),
        ({"spatial_padding_mode": "reflect"}, "spatial_padding_mode is 'reflect'"),
        ({"use_quant_conv": True}, "use_quant_conv is True"),
        ({"dims": 2}, "dims is 2"),
        ({"latent_log_var": "per_channel"}, "latent_log_var is 'per_channel'"),
        ({"blocks": [["attn_res_x", {"num_layers": 1}]]}, "'attn_res_x' is not supported"),
        (
            {"decoder_blocks": [["compress_all_res", {}]]},
            r"decoder_blocks\[0\]: decoder block 'compress_all_res'",
        ),
        (
            {"decoder_blocks": [["res_x_y", {"inject_noise": True}]]},
            "inject_noise is supported in res_x only",
        ),
        ({"blocks": []}, "blocks is"),
        ({"blocks": ["res_x"]}, r"blocks\[0\]: expected \[name"),
        ({"blocks": [["res_x", 10**9]]}, "num_layers is 1000000000"),
        ({"blocks": [["res_x", True]]}, "num_layers is True"),
        ({"latent_channels": "128"}, "latent_channels is '128'"),
        ({"encoder_base_channels": 6, "encoder_blocks": [["compress_all_res", {}]]}, "cannot be folded"),
        (
            {
                "decoder_base_channels": 6,
                "decoder_blocks": [["compress_all", {"residual": True, "multiplier": 2}]],
            },
            "cannot be unfolded",
        ),
    ],
)
def test_what_is_not_built_is_refused_by_name(change, match):
    with pytest.raises(CheckpointError, match=match):
        official.vae_config(FIRST_VAE | change)


def test_the_references_defaults_are_refused_where_they_differ():
    for key in ("norm_layer", "use_quant_conv", "latent_log_var"):
        with pytest.raises(CheckpointError, match=key):
            official.vae_config({k: v for k, v in FIRST_VAE.items() if k != key})


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"qk_norm": "layer_norm"}, "qk_norm"),
        ({"cross_attention_dim": 4096}, "cross_attention_dim is 4096"),
        ({"num_layers": 0}, "num_layers is 0"),
        ({"positional_embedding_max_pos": [20, 2048]}, "has 2 values"),
        ({"norm_eps": float("nan")}, "norm_eps"),
    ],
)
def test_transformer_refusals(change, match):
    with pytest.raises(CheckpointError, match=match):
        official.transformer_config(FIRST_TRANSFORMER | change)


def test_missing_field_is_named():
    with pytest.raises(CheckpointError, match="'num_layers' is missing"):
        official.transformer_config({})


def test_scheduler():
    first = {"_class_name": "RectifiedFlowScheduler", "num_train_timesteps": 1000, "shifting": "SD3"}
    assert official.scheduler_facts(first | {"target_shift_terminal": 0.1}, None) == SchedulerFacts(
        "uniform", "sd3", 0.1, None
    )
    assert official.scheduler_facts(first, None).terminal is None
    later = {"sampler": "LinearQuadratic", "shifting": None, "target_shift_terminal": 0.1}
    assert official.scheduler_facts(later, [1.0, 0.5]) == SchedulerFacts(
        "linear_quadratic", None, None, (1.0, 0.5)
    )
    with pytest.raises(CheckpointError, match="sampler is 'Constant'"):
        official.scheduler_facts({"sampler": "Constant"}, None)
    with pytest.raises(CheckpointError, match="sampler is"):
        official.scheduler_facts({"sampler": ["Uniform"]}, None)
    with pytest.raises(CheckpointError, match="shifting is 'SimpleDiffusion'"):
        official.scheduler_facts({"shifting": "SimpleDiffusion"}, None)
    with pytest.raises(CheckpointError, match="allowed_inference_steps"):
        official.scheduler_facts({}, ["a"])
