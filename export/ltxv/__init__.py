"""LTX-Video checkpoints: releases, layouts, names, and the modules that are traced."""

from ltxrt.engines.public import public

__all__, __getattr__ = public(
    __name__,
    "official versions",
    components="COMPONENTS part_shapes",
    config="TextEncoderConfig TransformerConfig UpsamplerConfig VaeBlock VaeConfig",
    facts="STATISTICS noise_maps text_encoder_facts transformer_facts",
    fp8="LAYOUT",
    open="Checkpoint TRANSFORMER_PREFIX VAE_PREFIX open_checkpoint",
)
