"""The facts that the runtime needs about a component, from its config and latent statistics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ltxrt.engines.errors import CheckpointError
from ltxrt.engines.families.ltxv.facts import Facts, NoiseMaps, TextEncoderFacts, TransformerFacts, VaeFacts
from ltxrt.export.checkpoint.safetensors import StoredTensor
from ltxrt.export.ltxv.config import TextEncoderConfig, TransformerConfig, VaeConfig

if TYPE_CHECKING:
    from ltxrt.export.ltxv.open import Checkpoint

LATENTS_MEAN = "per_channel_statistics.mean-of-means"
LATENTS_STD = "per_channel_statistics.std-of-means"
STATISTICS = (LATENTS_MEAN, LATENTS_STD)


def checkpoint_facts(checkpoint: Checkpoint) -> Facts:
    """Everything the runtime must know. Raises CheckpointError where parts do not belong together."""
    dit, vae, text = checkpoint.transformer, checkpoint.vae, checkpoint.text_encoder
    if text and dit and text.config.width != dit.config.caption_channels:
        raise CheckpointError(
            f"the text encoder is {text.config.width} wide but the transformer reads "
            f"{dit.config.caption_channels}; give the text encoder this checkpoint was trained with "
            "(T5 v1.1 XXL is 4096 wide)"
        )
    if vae and dit and vae.config.latent_channels != dit.config.in_channels:
        raise CheckpointError(
            f"the VAE makes {vae.config.latent_channels} latent channels but the transformer reads "
            f"{dit.config.in_channels}; take the VAE from the transformer's own checkpoint"
        )
    return Facts(
        transformer=transformer_facts(dit.config) if dit else None,
        vae=vae_facts(vae.config, vae.weights) if vae else None,
        text_encoder=text_encoder_facts(text.config) if text else None,
        scheduler=checkpoint.scheduler,
    )


def transformer_facts(config: TransformerConfig) -> TransformerFacts:
    """Sizes and rotary parameters that the host computes with."""
    return TransformerFacts(
        layers=config.layers,
        heads=config.heads,
        head_size=config.head_size,
        in_channels=config.in_channels,
        out_channels=config.out_channels,
        caption_channels=config.caption_channels,
        rope_theta=config.rope_theta,
        rope_max_positions=config.rope_max_positions,
        causal_rope=config.causal_rope,
        timestep_scale=config.timestep_scale,
    )


def text_encoder_facts(config: TextEncoderConfig) -> TextEncoderFacts:
    """Width of the hidden states and size of the vocabulary."""
    return TextEncoderFacts(width=config.width, vocab_size=config.vocab_size, layers=config.layers)


def vae_facts(config: VaeConfig, weights: Mapping[str, StoredTensor]) -> VaeFacts:
    """Compression, latent statistics (read from `weights`, official names) and the decoder's extra inputs."""
    return VaeFacts(
        latent_channels=config.latent_channels,
        spatial_compression=config.spatial_compression,
        temporal_compression=config.temporal_compression,
        latents_mean=_statistics(weights, LATENTS_MEAN, config.latent_channels),
        latents_std=_statistics(weights, LATENTS_STD, config.latent_channels),
        timestep_conditioning=config.timestep_conditioning,
        noise_maps=noise_maps(config),
    )


def noise_maps(config: VaeConfig) -> tuple[NoiseMaps, ...]:
    """Two maps per residual block that injects noise, grouped by resolution, in the order of use."""
    scale, counts = 1, dict[int, int]()
    for block in config.decoder_blocks:
        scale *= block.stride[1]
        if block.inject_noise:
            counts[scale] = counts.get(scale, 0) + 2 * block.layers
    return tuple(NoiseMaps(scale, count) for scale, count in counts.items())


def _statistics(weights: Mapping[str, StoredTensor], name: str, channels: int) -> tuple[float, ...]:
    if name not in weights or weights[name].shape != (channels,):
        raise CheckpointError(
            f"vae: {name} is missing or has not {channels} values; latents cannot be normalised"
        )
    values = weights[name].float32()
    if not np.isfinite(values).all() or (name == LATENTS_STD and (values <= 0).any()):
        raise CheckpointError(f"vae: {name} must be finite{' and positive' if name == LATENTS_STD else ''}")
    return tuple(float(v) for v in values)
