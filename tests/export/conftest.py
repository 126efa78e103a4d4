"""`reference`: the diffusers and transformers configs and models that correspond to ours."""

from types import SimpleNamespace

import pytest
from diffusers import AutoencoderKLLTXVideo, LTXVideoTransformer3DModel
from transformers import T5Config


def transformer_config(config):
    return {
        "num_layers": config.layers,
        "num_attention_heads": config.heads,
        "attention_head_dim": config.head_size,
        "in_channels": config.in_channels,
        "out_channels": config.out_channels,
        "cross_attention_dim": config.cross_attention_width,
        "caption_channels": config.caption_channels,
    }


def vae_config(graph, config):
    """§1.2 of the facts: the diffusers fields per graph, with `config`'s widths and layer counts."""
    encoder = [b for b in config.encoder_blocks if b.kind == "res"]
    decoder = [b for b in config.decoder_blocks if b.kind == "res"]
    strided = graph != "0.9.5"
    plain = graph == "0.9.0"
    widths = [b.in_channels for b in encoder]
    ups = [b for b in config.decoder_blocks if b.kind == "depth_to_space"]
    return {
        "latent_channels": config.latent_channels,
        "block_out_channels": widths[:-1] if strided else widths,
        "layers_per_block": [b.layers for b in encoder],
        "down_block_types": ["LTXVideoDownBlock3D" if strided else "LTXVideo095DownBlock3D"] * 4,
        "spatio_temporal_scaling": [True, True, True, not strided],
        "downsample_type": ["conv"] * 4
        if strided
        else ["spatial", "temporal", "spatiotemporal", "spatiotemporal"],
        "decoder_block_out_channels": [b.in_channels for b in decoder[:0:-1]]
        if plain
        else [b.in_channels for b in ups[::-1]],
        "decoder_layers_per_block": [b.layers for b in decoder[::-1]],
        "decoder_spatio_temporal_scaling": [True, True, True, False] if plain else [True] * 3,
        "decoder_inject_noise": [b.inject_noise for b in decoder[::-1]],
        "upsample_residual": [False] * 4 if plain else [True] * 3,
        "upsample_factor": [1] * 4 if plain else [2] * 3,
        "timestep_conditioning": not plain,
        "spatial_compression_ratio": 32,
        "temporal_compression_ratio": 8,
    }


def transformer(config):
    return LTXVideoTransformer3DModel(**transformer_config(config)).eval()


def vae(graph, config):
    return AutoencoderKLLTXVideo(**vae_config(graph, config)).eval()


def t5_config(config):
    return T5Config(
        d_model=config.width,
        num_layers=config.layers,
        num_heads=config.heads,
        d_kv=config.head_size,
        d_ff=config.ff_width,
        vocab_size=config.vocab_size,
        feed_forward_proj="gated-gelu",
    )


@pytest.fixture(scope="session")
def reference():
    return SimpleNamespace(
        transformer_config=transformer_config,
        vae_config=vae_config,
        transformer=transformer,
        vae=vae,
        t5_config=t5_config,
    )
