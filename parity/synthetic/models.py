"""Configs of the releases: at full size, and tiny with the same block structure.

The VAE block lists are those of the official headers (pixels first, for encoder and decoder alike).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ltxrt.engines.families.ltxv.facts import SchedulerFacts
from ltxrt.export.ltxv import versions
from ltxrt.export.ltxv.config import TextEncoderConfig, TransformerConfig, VaeConfig
from ltxrt.export.ltxv.official import vae_config

Blocks = list[list[Any]]


@dataclass(frozen=True)
class Models:
    """All configs of one release."""

    transformer: TransformerConfig
    vae: VaeConfig
    text_encoder: TextEncoderConfig
    scheduler: SchedulerFacts


def full(version: str) -> Models:
    """A release's own sizes; `version` is a row's name in `versions`."""
    row = versions.version(version)
    head_size = 128 if row.layers == 48 else 64
    return Models(
        transformer=TransformerConfig(
            layers=row.layers,
            heads=32,
            head_size=head_size,
            in_channels=128,
            out_channels=128,
            cross_attention_width=32 * head_size,
            caption_channels=4096,
            causal_rope=row.causal_rope,
        ),
        vae=_vae(row.vae_graph, base=128, latent_channels=128, shallow=False),
        text_encoder=TextEncoderConfig(4096, 24, 64, 64, 10240, 32128),
        scheduler=row.scheduler,
    )


def tiny(version: str) -> Models:
    """A few kilobytes to a few megabytes, with a release's graphs, compression and schedule.

    Widths have the two rotary paddings of the releases: 32 mod 6 is 2, as in the 2B model, 64 mod 6 is 4, as
    in the 13B model. Residual groups have one block, the first two, so that block indices are tested too.
    """
    row = versions.version(version)
    head_size = 16 if row.vae_graph == "0.9.5" else 8
    return Models(
        transformer=TransformerConfig(
            layers=2,
            heads=4,
            head_size=head_size,
            in_channels=16,
            out_channels=16,
            cross_attention_width=4 * head_size,
            caption_channels=32,
            causal_rope=row.causal_rope,
        ),
        vae=_vae(row.vae_graph, base=8, latent_channels=16, shallow=True),
        text_encoder=TextEncoderConfig(32, 2, 4, 8, 64, 384),
        scheduler=row.scheduler,
    )


def _vae(graph: str, base: int, latent_channels: int, shallow: bool) -> VaeConfig:
    encoder, decoder = _STRIDED, _PLAIN
    if graph == "0.9.1":
        decoder = _residual((5, True), (6, True), (7, True), (8, False))
    elif graph == "0.9.5":
        encoder, decoder = _FOLDING, _residual(*[(5, False)] * 4)
    return vae_config(
        {
            "_class_name": "CausalVideoAutoencoder",
            "norm_layer": "pixel_norm",
            "latent_log_var": "uniform",
            "use_quant_conv": False,
            "patch_size": 4,
            "latent_channels": latent_channels,
            "encoder_base_channels": base,
            "decoder_base_channels": base,
            "encoder_blocks": _cut(encoder) if shallow else encoder,
            "decoder_blocks": _cut(decoder[::-1])[::-1] if shallow else decoder,
            "timestep_conditioning": graph != "0.9.0",
        }
    )


def _residual(*groups: tuple[int, bool]) -> Blocks:
    """Residual groups of (layers, inject noise), with residual upsamplers between them."""
    blocks: Blocks = []
    for layers, noise in groups:
        blocks += [["res_x", {"num_layers": layers, "inject_noise": noise}]]
        blocks += [["compress_all", {"residual": True, "multiplier": 2}]]
    return blocks[:-1]


def _cut(blocks: Blocks) -> Blocks:
    """One residual block per group, two in the first."""
    first = next(i for i, (name, _) in enumerate(blocks) if name == "res_x")
    return [_with_layers(b, 2 if i == first else 1) if b[0] == "res_x" else b for i, b in enumerate(blocks)]


def _with_layers(block: list[Any], layers: int) -> list[Any]:
    name, parameters = block
    return [name, {**parameters, "num_layers": layers} if isinstance(parameters, dict) else layers]


_STRIDED: Blocks = [
    ["res_x", 4], ["compress_all", 1], ["res_x_y", 1],
    ["res_x", 3], ["compress_all", 1], ["res_x_y", 1],
    ["res_x", 3], ["compress_all", 1],
    ["res_x", 3], ["res_x", 4],
]  # fmt: skip
_PLAIN = _STRIDED  # the first release has one list for encoder and decoder
_FOLDING: Blocks = [
    ["res_x", {"num_layers": 4}], ["compress_space_res", {"multiplier": 2}],
    ["res_x", {"num_layers": 6}], ["compress_time_res", {"multiplier": 2}],
    ["res_x", {"num_layers": 6}], ["compress_all_res", {"multiplier": 2}],
    ["res_x", {"num_layers": 2}], ["compress_all_res", {"multiplier": 2}],
    ["res_x", {"num_layers": 2}],
]  # fmt: skip
