"""LTX-Video's components: which part each comes from, which module is traced, and in which forms."""

from __future__ import annotations

from typing import Any

from ltxrt.engines.errors import setting
from ltxrt.export import components
from ltxrt.export.components import Component, Form
from ltxrt.export.ltxv.fp8 import LAYOUT
from ltxrt.export.ltxv.models import t5, transformer, upsampler, vae
from ltxrt.export.ltxv.tokenizer import write_t5

_STATISTICS = "per_channel_statistics."
_VAE = f"{setting('vae')}, or another checkpoint"

COMPONENTS: dict[str, Component] = {
    "text_encoder": Component(
        "text_encoder",
        t5.TextEncoder,
        constants=t5.constants,
        # The feed-forward output passes 65504 in T5-XXL: the whole video turns into NaN or a flat colour.
        forms={"fp16": Form(t5.fp16_config, t5.fp16_scales)},
        tokenizer=write_t5,
        given=setting("text_encoder"),
    ),
    "transformer": Component(
        "transformer", transformer.Transformer, constants=transformer.constants, fp8=LAYOUT, given=_VAE
    ),
    "vae_encoder": Component("vae", vae.VaeEncoder, ("encoder.", _STATISTICS), given=_VAE),
    "vae_decoder": Component("vae", vae.VaeDecoder, ("decoder.", _STATISTICS), given=_VAE),
    "latent_upsampler": Component(
        "latent_upsampler", upsampler.LatentUpsampler, given=f"{setting('upsampler')}, a spatial one"
    ),
    "temporal_upsampler": Component(
        "temporal_upsampler", upsampler.LatentUpsampler, given=f"{setting('upsampler')}, a temporal one"
    ),
}


def part_shapes(name: str, config: Any) -> dict[str, tuple[int, ...]]:
    """Every weight of a checkpoint's part (`transformer`, `vae`, …), by official name."""
    return dict(components.part_shapes(COMPONENTS, name, config))
