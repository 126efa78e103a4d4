"""Converts the official config JSON (single-file header, `__metadata__["config"]`) to our configs and back.

Reference: Lightricks/LTX-Video `causal_video_autoencoder.py` (`from_config`, `Encoder`, `Decoder`) and
`transformer3d.py`. Unsupported features are refused by name; absent fields have the reference's defaults.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ltxrt.engines.errors import CheckpointError
from ltxrt.engines.families.ltxv.facts import SchedulerFacts
from ltxrt.export.checkpoint.fields import Fields
from ltxrt.export.ltxv.config import TransformerConfig, VaeBlock, VaeConfig

MAX_LAYERS = 1000
STRIDES = {"all": (2, 2, 2), "space": (1, 2, 2), "time": (2, 1, 1)}
_WORDS = {stride: word for word, stride in STRIDES.items()}
_ENCODER_NAMES = (
    "res_x", "res_x_y", "compress_time", "compress_space", "compress_all", "compress_all_x_y",
    "compress_time_res", "compress_space_res", "compress_all_res",
)  # fmt: skip
_DECODER_NAMES = ("res_x", "res_x_y", "compress_time", "compress_space", "compress_all")
_TRANSFORMER_SUPPORTED = {
    "_class_name": "Transformer3DModel",
    "activation_fn": "gelu-approximate",
    "attention_bias": True,
    "norm_elementwise_affine": False,
    "standardization_norm": "rms_norm",
    "qk_norm": "rms_norm",
    "adaptive_norm": "single_scale_shift",
    "positional_embedding_type": "rope",
    "only_cross_attention": False,
    "double_self_attention": False,
    "num_vector_embeds": None,
}
_VAE_SUPPORTED = {
    "_class_name": "CausalVideoAutoencoder",
    "dims": 3,
    "in_channels": 3,
    "out_channels": 3,
    "norm_layer": "pixel_norm",
    "latent_log_var": "uniform",
    "use_quant_conv": False,
    "causal_decoder": False,
    "normalize_latent_channels": False,
    "scaling_factor": 1.0,
    "spatial_padding_mode": "zeros",
    "encoder_spatial_padding_mode": "zeros",
    "decoder_spatial_padding_mode": "zeros",
}
# The reference's defaults for absent fields, where they differ from the supported value.
_VAE_DEFAULTS = {"norm_layer": "group_norm", "use_quant_conv": True, "latent_log_var": "per_channel"}
_SAMPLERS = {"Uniform": "uniform", "LinearQuadratic": "linear_quadratic"}


def transformer_config(data: Mapping[str, Any]) -> TransformerConfig:
    """The config in the header's `transformer` object."""
    fields = Fields(data, "transformer config")
    fields.must_be(_TRANSFORMER_SUPPORTED)
    in_channels = fields.integer("in_channels", 128)
    positions = fields.numbers("positional_embedding_max_pos", (20.0, 2048.0, 2048.0))
    if len(positions) != 3:
        raise CheckpointError(
            f"transformer config: positional_embedding_max_pos has {len(positions)} values, not 3"
        )
    return checked_transformer(
        TransformerConfig(
            layers=fields.integer("num_layers", most=MAX_LAYERS),
            heads=fields.integer("num_attention_heads"),
            head_size=fields.integer("attention_head_dim"),
            in_channels=in_channels,
            out_channels=in_channels if data.get("out_channels") is None else fields.integer("out_channels"),
            cross_attention_width=fields.integer("cross_attention_dim"),
            caption_channels=fields.integer("caption_channels"),
            rope_theta=fields.number("positional_embedding_theta", 10000.0),
            rope_max_positions=(positions[0], positions[1], positions[2]),
            causal_rope=fields.flag("causal_temporal_positioning", False),
            timestep_scale=fields.number(
                "timestep_scale_multiplier", 1.0
            ),  # in the reference, absent means no scaling
            norm_eps=fields.number("norm_eps", 1e-6),
        )
    )


def checked_transformer(config: TransformerConfig) -> TransformerConfig:
    """`config`; CheckpointError if the reference could not run it."""
    if config.cross_attention_width != config.width:
        raise CheckpointError(
            f"transformer config: cross_attention_dim is {config.cross_attention_width}; it must be heads × "
            f"head size = {config.width}, because the caption projection has that width"
        )
    if config.width % 2:
        raise CheckpointError(
            f"transformer config: width {config.width} is odd; rotary embedding needs pairs"
        )
    return config


def official_transformer(config: TransformerConfig) -> dict[str, Any]:
    """The header's `transformer` object for `config`, the inverse of `transformer_config`."""
    return {
        **_TRANSFORMER_SUPPORTED,
        "num_layers": config.layers,
        "num_attention_heads": config.heads,
        "attention_head_dim": config.head_size,
        "in_channels": config.in_channels,
        "out_channels": config.out_channels,
        "cross_attention_dim": config.cross_attention_width,
        "caption_channels": config.caption_channels,
        "positional_embedding_theta": config.rope_theta,
        "positional_embedding_max_pos": list(config.rope_max_positions),
        "causal_temporal_positioning": config.causal_rope,
        "timestep_scale_multiplier": config.timestep_scale,
        "norm_eps": config.norm_eps,
    }


def vae_config(data: Mapping[str, Any]) -> VaeConfig:
    """The config in the header's `vae` object: blocks with explicit widths, in the order of execution."""
    fields = Fields({**_VAE_DEFAULTS, **data}, "vae config")
    fields.must_be(_VAE_SUPPORTED)
    encoder = _entries(fields, "encoder_blocks", "encoder", _ENCODER_NAMES)
    # The file lists the decoder's blocks in reverse, from pixels to latents.
    decoder = _entries(fields, "decoder_blocks", "decoder", _DECODER_NAMES)[::-1]
    return VaeConfig(
        latent_channels=fields.integer("latent_channels"),
        patch_size=fields.integer("patch_size", 1, most=64),
        encoder_blocks=_encoder_blocks(encoder, fields.integer("encoder_base_channels", 128)),
        decoder_blocks=_decoder_blocks(decoder, fields.integer("decoder_base_channels", 128)),
        timestep_conditioning=fields.flag("timestep_conditioning", False),
    )


def _entries(fields: Fields, key: str, side: str, known: tuple[str, ...]) -> list[tuple[str, Fields]]:
    """The block list under `key`, or under the shared `blocks` of the first release."""
    key = key if key in fields.data else "blocks"
    return [_entry(e, f"vae config: {key}[{i}]", side, known) for i, e in enumerate(fields.sequence(key))]


def _entry(entry: Any, where: str, side: str, known: tuple[str, ...]) -> tuple[str, Fields]:
    if not isinstance(entry, list | tuple) or len(entry) != 2 or not isinstance(entry[1], int | dict):
        raise CheckpointError(f"{where}: expected [name, number or object], got {entry!r:.60}")
    name, parameters = entry
    if name not in known:
        raise CheckpointError(
            f"{where}: {side} block {name!r:.60} is not supported; known are {', '.join(known)}"
        )
    return name, Fields({"num_layers": parameters} if isinstance(parameters, int) else parameters, where)


def _encoder_blocks(entries: list[tuple[str, Fields]], channels: int) -> tuple[VaeBlock, ...]:
    blocks: list[VaeBlock] = []
    for name, parameters in entries:
        blocks.append(_encoder_block(name, parameters, channels))
        channels = blocks[-1].out_channels
    return tuple(blocks)


def _encoder_block(name: str, parameters: Fields, channels: int) -> VaeBlock:
    if name == "res_x":
        layers = parameters.integer("num_layers", most=MAX_LAYERS)
        return VaeBlock("res", channels, channels, layers)
    wider = channels * parameters.integer("multiplier", 2, most=64)
    if name == "res_x_y":
        return VaeBlock("res_xy", channels, wider)
    word, _, rest = name.removeprefix("compress_").partition("_")
    if rest == "res":
        return space_to_depth(channels, wider, STRIDES[word], parameters.where)
    return VaeBlock("conv", channels, wider if rest == "x_y" else channels, stride=STRIDES[word])


def space_to_depth(channels: int, wider: int, stride: tuple[int, int, int], where: str) -> VaeBlock:
    """A space-to-depth block; CheckpointError unless its widths divide as the convolution requires."""
    fold = math.prod(stride)
    if wider % fold or (channels * fold) % wider:
        raise CheckpointError(f"{where}: {channels} channels cannot be folded by {fold} into {wider}")
    return VaeBlock("space_to_depth", channels, wider, stride=stride)


def _decoder_blocks(entries: list[tuple[str, Fields]], base: int) -> tuple[VaeBlock, ...]:
    """Widths start at `base` times all divisors, so that the last block ends at `base`."""
    channels = base * math.prod(_divisor(name, parameters) for name, parameters in entries)
    blocks: list[VaeBlock] = []
    for name, parameters in entries:
        blocks.append(_decoder_block(name, parameters, channels))
        channels = blocks[-1].out_channels
    return tuple(blocks)


def _divisor(name: str, parameters: Fields) -> int:
    defaults = {"res_x_y": 2, "compress_all": 1}  # the reference reads a multiplier only for these two
    return parameters.integer("multiplier", defaults[name], most=64) if name in defaults else 1


def _decoder_block(name: str, parameters: Fields, channels: int) -> VaeBlock:
    narrower = channels // _divisor(name, parameters)
    noise = parameters.flag("inject_noise", False)
    if name == "res_x":
        layers = parameters.integer("num_layers", most=MAX_LAYERS)
        return VaeBlock("res", channels, channels, layers, inject_noise=noise)
    if noise:
        raise CheckpointError(f"{parameters.where}: inject_noise is supported in res_x only, not in {name}")
    if name == "res_x_y":
        return VaeBlock("res_xy", channels, narrower)
    residual = name == "compress_all" and parameters.flag("residual", False)
    return depth_to_space(
        channels, narrower, STRIDES[name.removeprefix("compress_")], residual, parameters.where
    )


def depth_to_space(
    channels: int, narrower: int, stride: tuple[int, int, int], residual: bool, where: str
) -> VaeBlock:
    """A depth-to-space block; a residual one repeats its rearranged input up to the output's width."""
    fold = math.prod(stride)
    if residual and (channels % fold or narrower % (channels // fold)):
        raise CheckpointError(f"{where}: {channels} channels cannot be unfolded by {fold} onto {narrower}")
    return VaeBlock("depth_to_space", channels, narrower, stride=stride, residual=residual)


def official_vae(config: VaeConfig) -> dict[str, Any]:
    """The header's `vae` object for `config`, the inverse of `vae_config`."""
    return {
        **_VAE_SUPPORTED,
        "latent_channels": config.latent_channels,
        "patch_size": config.patch_size,
        "encoder_base_channels": config.encoder_blocks[0].in_channels,
        "decoder_base_channels": config.decoder_blocks[-1].out_channels,
        "encoder_blocks": [_official_encoder(b) for b in config.encoder_blocks],
        "decoder_blocks": [_official_decoder(b) for b in reversed(config.decoder_blocks)],
        "timestep_conditioning": config.timestep_conditioning,
    }


def _official_encoder(block: VaeBlock) -> list[Any]:
    if block.kind == "res":
        return ["res_x", {"num_layers": block.layers}]
    wider = {"multiplier": block.out_channels // block.in_channels}
    if block.kind == "res_xy":
        return ["res_x_y", wider]
    name = f"compress_{_WORDS[block.stride]}"
    if block.kind == "space_to_depth":
        return [f"{name}_res", wider]
    return [f"{name}_x_y", wider] if block.out_channels != block.in_channels else [name, 1]


def _official_decoder(block: VaeBlock) -> list[Any]:
    if block.kind == "res":
        return ["res_x", {"num_layers": block.layers, "inject_noise": block.inject_noise}]
    narrower: dict[str, Any] = {"multiplier": block.in_channels // block.out_channels}
    if block.kind == "res_xy":
        return ["res_x_y", narrower]
    return [f"compress_{_WORDS[block.stride]}", narrower | {"residual": block.residual}]


def scheduler_facts(data: Mapping[str, Any], allowed_steps: Any) -> SchedulerFacts:
    """The header's `scheduler` object and its top-level `allowed_inference_steps` (None if absent)."""
    sampler, shifting = data.get("sampler") or "Uniform", data.get("shifting")
    if not isinstance(sampler, str) or sampler not in _SAMPLERS:
        raise CheckpointError(
            f"scheduler config: sampler is {sampler!r:.60}; it must be one of {', '.join(_SAMPLERS)}"
        )
    if shifting not in (None, "SD3"):
        raise CheckpointError(f"scheduler config: shifting is {shifting!r:.60}; it must be 'SD3' or null")
    terminal = data.get("target_shift_terminal") if shifting else None
    fields = Fields(
        {"target_shift_terminal": terminal, "allowed_inference_steps": allowed_steps}, "scheduler config"
    )
    return SchedulerFacts(
        sampler=_SAMPLERS[sampler],
        shift="sd3" if shifting else None,
        terminal=None if terminal is None else fields.number("target_shift_terminal"),
        allowed_steps=None if allowed_steps is None else fields.numbers("allowed_inference_steps"),
    )


def official_scheduler(facts: SchedulerFacts) -> dict[str, Any]:
    """The header's `scheduler` object for `facts` (its allowed steps are at the top level instead)."""
    names = {ours: official for official, ours in _SAMPLERS.items()}
    return {
        "_class_name": "RectifiedFlowScheduler",
        "num_train_timesteps": 1000,
        "sampler": names[facts.sampler],
        "shifting": "SD3" if facts.shift == "sd3" else None,
        "base_resolution": None,
        "target_shift_terminal": facts.terminal,
    }
