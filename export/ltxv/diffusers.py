"""Converts diffusers and transformers configs (`config.json`, `scheduler_config.json`).

Reference: diffusers `transformer_ltx.py`, `autoencoder_kl_ltx.py` (absent fields have the constructors'
defaults), transformers `T5Config`. A VAE's blocks are returned in the official order and numbering.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ltxrt.engines.errors import CheckpointError
from ltxrt.engines.families.ltxv.facts import SchedulerFacts
from ltxrt.export.checkpoint.fields import Fields
from ltxrt.export.ltxv import official
from ltxrt.export.ltxv.config import TextEncoderConfig, TransformerConfig, VaeBlock, VaeConfig
from ltxrt.export.ltxv.vae_graphs import vae_graph

_TRANSFORMER_SUPPORTED = {
    "_class_name": "LTXVideoTransformer3DModel",
    "patch_size": 1,
    "patch_size_t": 1,
    "activation_fn": "gelu-approximate",
    "qk_norm": "rms_norm_across_heads",
    "norm_elementwise_affine": False,
    "attention_bias": True,
    "attention_out_bias": True,
}
_VAE_SUPPORTED = {
    "_class_name": "AutoencoderKLLTXVideo",
    "in_channels": 3,
    "out_channels": 3,
    "patch_size_t": 1,
    "resnet_norm_eps": 1e-6,
    "scaling_factor": 1.0,
    "encoder_causal": True,
    "decoder_causal": False,
}
_T5_SUPPORTED = {"model_type": "t5", "feed_forward_proj": "gated-gelu", "dense_act_fn": "gelu_new"}
_SCHEDULER_SUPPORTED = {
    "_class_name": "FlowMatchEulerDiscreteScheduler",
    "shift": 1.0,
    "invert_sigmas": False,
    "use_karras_sigmas": False,
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
}
_SHIFT_SUPPORTED = {
    "base_shift": 0.95,
    "max_shift": 2.05,
    "base_image_seq_len": 1024,
    "max_image_seq_len": 4096,
    "time_shift_type": "exponential",
}
_WIDTHS, _LAYERS, _SCALED = (128, 256, 512, 512), (4, 3, 3, 3, 4), (True, True, True, False)
_DOWN_WORDS = {"spatial": "space", "temporal": "time", "spatiotemporal": "all"}


def transformer_config(data: Mapping[str, Any]) -> TransformerConfig:
    """`transformer/config.json`. Only the pipeline class knows `causal_rope`: the caller sets it."""
    fields = Fields(data, "transformer/config.json")
    fields.must_be(_TRANSFORMER_SUPPORTED)
    in_channels = fields.integer("in_channels", 128)
    return official.checked_transformer(
        TransformerConfig(
            layers=fields.integer("num_layers", 28, most=official.MAX_LAYERS),
            heads=fields.integer("num_attention_heads", 32),
            head_size=fields.integer("attention_head_dim", 64),
            in_channels=in_channels,
            out_channels=in_channels
            if data.get("out_channels", 128) is None
            else fields.integer("out_channels", 128),
            cross_attention_width=fields.integer("cross_attention_dim", 2048),
            caption_channels=fields.integer("caption_channels", 4096),
            norm_eps=fields.number("norm_eps", 1e-6),
        )
    )


def vae_config(data: Mapping[str, Any]) -> VaeConfig:
    """`vae/config.json`; refused unless its blocks are one of the three known graphs, of any widths."""
    fields = Fields(data, "vae/config.json")
    fields.must_be(_VAE_SUPPORTED)
    try:
        config = VaeConfig(
            latent_channels=fields.integer("latent_channels", 128),
            patch_size=fields.integer("patch_size", 4, most=64),
            encoder_blocks=tuple(_encoder_blocks(fields)),
            decoder_blocks=tuple(_decoder_blocks(fields)),
            timestep_conditioning=fields.flag("timestep_conditioning", False),
        )
    except IndexError:
        raise CheckpointError("vae/config.json: its block lists have inconsistent lengths") from None
    if vae_graph(config) is None:
        raise CheckpointError(
            "vae/config.json: its blocks are not those of a released VAE (0.9.0, 0.9.1 or 0.9.5)"
        )
    return config


def _encoder_blocks(fields: Fields) -> list[VaeBlock]:
    widths, layers = (
        fields.integers("block_out_channels", _WIDTHS),
        fields.integers("layers_per_block", _LAYERS),
    )
    scaled = fields.flags("spatio_temporal_scaling", _SCALED)
    types = fields.sequence("down_block_types", ("LTXVideoDownBlock3D",) * 4)
    folding = types[-1] == "LTXVideo095DownBlock3D"
    down = fields.sequence("downsample_type", ("conv",) * 4) if folding else ["conv"] * len(widths)
    blocks, channels = [], widths[0]
    for i in range(len(widths) - folding):
        following = widths[i + 1] if i + 1 < len(widths) else widths[i]
        blocks.append(VaeBlock("res", channels, channels, layers[i]))
        if scaled[i] and str(down[i]) in _DOWN_WORDS:
            stride = official.STRIDES[_DOWN_WORDS[down[i]]]
            blocks.append(official.space_to_depth(channels, following, stride, fields.where))
        elif scaled[i]:
            blocks.append(VaeBlock("conv", channels, channels, stride=(2, 2, 2)))
        if not folding and following != channels:
            blocks.append(VaeBlock("res_xy", channels, following))
        channels = following
    return [*blocks, VaeBlock("res", channels, channels, layers[-1])]


def _decoder_blocks(fields: Fields) -> list[VaeBlock]:
    """The constructor reads every list from its end."""
    widths = fields.integers("decoder_block_out_channels", _WIDTHS)[::-1]
    layers = fields.integers("decoder_layers_per_block", _LAYERS)[::-1]
    scaled = fields.flags("decoder_spatio_temporal_scaling", _SCALED)[::-1]
    noise = fields.flags("decoder_inject_noise", (False,) * 5)[::-1]
    residual = fields.flags("upsample_residual", (False,) * 4)[::-1]
    factor = fields.integers("upsample_factor", (1,) * 4)[::-1]
    channels = widths[0]
    blocks = [VaeBlock("res", channels, channels, layers[0], inject_noise=noise[0])]
    for i, width in enumerate(widths):
        if channels % factor[i] or width % factor[i]:
            raise CheckpointError(
                f"{fields.where}: upsample_factor {factor[i]} does not divide {channels} and {width}"
            )
        entering, width = channels // factor[i], width // factor[i]
        if entering != width:
            blocks.append(VaeBlock("res_xy", entering, width))
        if scaled[i]:
            stride = official.STRIDES["all"]
            blocks.append(
                official.depth_to_space(width * factor[i], width, stride, residual[i], fields.where)
            )
        blocks.append(VaeBlock("res", width, width, layers[i + 1], inject_noise=noise[i + 1]))
        channels = width
    return blocks


def text_encoder_config(data: Mapping[str, Any]) -> TextEncoderConfig:
    """A T5 v1.1 `config.json` (transformers `T5Config`)."""
    fields = Fields(data, "text encoder config.json")
    if "model_type" not in data or "feed_forward_proj" not in data:
        raise CheckpointError(
            "text encoder config.json: has no model_type or feed_forward_proj; is it T5 v1.1's?"
        )
    fields.must_be(_T5_SUPPORTED)
    return TextEncoderConfig(
        width=fields.integer("d_model"),
        layers=fields.integer("num_layers", most=official.MAX_LAYERS),
        heads=fields.integer("num_heads"),
        head_size=fields.integer("d_kv"),
        ff_width=fields.integer("d_ff"),
        vocab_size=fields.integer("vocab_size", most=1 << 24),
        relative_buckets=fields.integer("relative_attention_num_buckets", 32),
        relative_max_distance=fields.integer("relative_attention_max_distance", 128),
        norm_eps=fields.number("layer_norm_epsilon", 1e-6),
    )


def scheduler_facts(data: Mapping[str, Any]) -> SchedulerFacts:
    """`scheduler_config.json` (FlowMatchEulerDiscreteScheduler): with dynamic shifting in the first releases.

    Without it, the condition pipeline passes linear-quadratic sigmas (pipeline_ltx_condition.py).
    """
    fields = Fields(data, "scheduler_config.json")
    fields.must_be(_SCHEDULER_SUPPORTED)
    if not fields.flag("use_dynamic_shifting", False):
        fields.must_be({"shift_terminal": None})
        return SchedulerFacts("linear_quadratic", None, None, None)
    fields.must_be(_SHIFT_SUPPORTED)
    terminal = None if data.get("shift_terminal") is None else fields.number("shift_terminal")
    return SchedulerFacts("uniform", "sd3", terminal, None)
