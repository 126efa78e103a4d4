"""The example's networks: the traced modules themselves, their sizes, their initial weights, their files.

What is trained is what `ltx-export` traces, so nothing can differ between the two. Files are the official
layouts.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ltxrt.engines.families.ltxv.facts import SchedulerFacts, VaeFacts
from ltxrt.export.graph import layers
from ltxrt.export.ltxv import official
from ltxrt.export.ltxv.config import TextEncoderConfig, TransformerConfig, UpsamplerConfig, VaeConfig
from ltxrt.export.ltxv.models import t5, transformer, upsampler, vae
from ltxrt.export.ltxv.open import TRANSFORMER_PREFIX, VAE_PREFIX

LATENTS = 64  # channels
_WIDTH = 12  # of the autoencoder next to the pixels

VAE = official.vae_config(
    {
        "norm_layer": "pixel_norm",
        "latent_log_var": "uniform",
        "use_quant_conv": False,
        "patch_size": 4,
        "latent_channels": LATENTS,
        "encoder_base_channels": _WIDTH,
        "decoder_base_channels": _WIDTH,
        "encoder_blocks": [
            ["res_x", {"num_layers": 2}], ["compress_space_res", {"multiplier": 2}],
            ["res_x", {"num_layers": 2}], ["compress_time_res", {"multiplier": 2}],
            ["res_x", {"num_layers": 2}], ["compress_all_res", {"multiplier": 2}],
            ["res_x", {"num_layers": 1}], ["compress_all_res", {"multiplier": 1}],
            ["res_x", {"num_layers": 1}],
        ],
        "decoder_blocks": [
            ["res_x", {"num_layers": 1}], ["compress_all", {"residual": True, "multiplier": 2}],
            ["res_x", {"num_layers": 2}], ["compress_all", {"residual": True, "multiplier": 2}],
            ["res_x", {"num_layers": 2}], ["compress_all", {"residual": True, "multiplier": 2}],
            ["res_x", {"num_layers": 2}],
        ],
        "timestep_conditioning": True,
    }
)  # fmt: skip
TEXT = TextEncoderConfig(width=128, layers=2, heads=4, head_size=32, ff_width=256, vocab_size=256)
TRANSFORMER = TransformerConfig(
    layers=7,
    heads=3,
    head_size=64,
    in_channels=LATENTS,
    out_channels=LATENTS,
    cross_attention_width=192,
    caption_channels=TEXT.width,
    causal_rope=True,
)
UPSAMPLER = UpsamplerConfig(LATENTS, mid_channels=32, blocks=2)
SCHEDULER = SchedulerFacts("linear_quadratic", None, None, None)
DECODER_TIMESTEPS = 1000.0  # `timestep_scale_multiplier` of every release


def vae_facts() -> VaeFacts:
    """What the runtime's shapes and rotary coordinates are computed from; statistics are not needed there."""
    return VaeFacts(
        LATENTS,
        VAE.spatial_compression,
        VAE.temporal_compression,
        (0.0,) * LATENTS,
        (1.0,) * LATENTS,
        True,
        (),
    )


class Autoencoder(nn.Module):
    """Encoder and decoder with one set of statistics, as they stand in a checkpoint."""

    def __init__(self, config: VaeConfig = VAE) -> None:
        super().__init__()
        self.encoder, self.decoder = vae.Encoder(config), vae.Decoder(config)
        self.per_channel_statistics = vae.LatentStatistics(config.latent_channels)

    def encode(self, pixels: Tensor) -> Tensor:
        """Pixels (B,3,F,H,W) in −1..1 to normalised latents (B,C,f,h,w)."""
        mean, std = self.per_channel_statistics.rows()
        return (self.encoder(pixels) - mean) / std

    def decode(self, latents: Tensor, timestep: Tensor) -> Tensor:
        """Normalised latents and a timestep (B,) in 0..1 to pixels."""
        mean, std = self.per_channel_statistics.rows()
        return self.decoder(latents * std + mean, timestep, iter(()))


def make_trainable() -> None:
    """Give the transformer a rotation that torch can differentiate; ONNX's operator has no gradient."""
    transformer.rotate = _rotate


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Interleaved rotation of x (B,N,D) by tables (B,N,D/2), as export/ltxv/models/transformer.py."""
    even, odd = x.unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack([even * cos - odd * sin, odd * cos + even * sin], -1).flatten(-2)


def initialise(module: nn.Module, seed: int) -> None:
    """Random weights to train from; every residual branch begins small."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        with torch.no_grad():
            parameter.copy_(_initial(name, parameter, generator))
    for name, buffer in module.named_buffers():
        if name.endswith("ones"):
            buffer.fill_(1.0)
        elif name.endswith("buckets"):
            buffer.copy_(t5.relative_buckets(TEXT.relative_buckets, TEXT.relative_max_distance))


def _initial(name: str, parameter: Tensor, generator: torch.Generator) -> Tensor:
    last = name.rsplit(".", 1)[-1]
    if last == "timestep_scale_multiplier":
        return torch.full_like(parameter, DECODER_TIMESTEPS)
    if last == "std-of-means" or (parameter.ndim == 1 and last == "weight"):
        return torch.ones_like(parameter)
    if parameter.ndim < 2 and "conv" in name:
        # Norms over channels drop the length of a vector: without biases a flat colour's brightness is lost.
        return torch.randn(parameter.shape, generator=generator) * 0.3
    if parameter.ndim < 2 or "scale_shift_table" in name:
        return torch.zeros_like(parameter)
    # Convolutions hold (out, in, …), our Linear (in, out), an embedding (rows, width).
    fan = parameter.shape[0] if parameter.ndim == 2 else math.prod(parameter.shape[1:])
    scale = fan**-0.5
    if "shared" in name or "relative_attention_bias" in name:
        scale = 0.5
    elif "SelfAttention.q" in name:
        scale *= TEXT.head_size**-0.5  # T5 does not divide its attention's products
    elif any(part in name for part in ("conv2.", "to_out", "net.2", ".wo.", "SelfAttention.o")):
        scale *= 0.2
    elif "adaln_single.linear" in name or "last_time_embedder" in name or name.startswith("proj_out"):
        scale *= 0.1
    return torch.randn(parameter.shape, generator=generator) * scale


def _stored(module: nn.Module, prefix: str) -> dict[str, Tensor]:
    """The module's weights as a checkpoint holds them: torch's orientation, bf16, buffers left out."""
    linear = {name for name, part in module.named_modules() if isinstance(part, layers.Linear)}
    tensors = {}
    for name, parameter in module.named_parameters():
        value = parameter.detach()
        if name.removesuffix(".weight") in linear:
            value = value.T
        single = name.endswith(("timestep_scale_multiplier", "-of-means"))
        tensors[prefix + name] = value.to(torch.float32 if single else torch.bfloat16).contiguous()
    return tensors


def save_checkpoint(path: Path, autoencoder: Autoencoder, dit: nn.Module) -> None:
    """The official single file: transformer and autoencoder, the config in its header."""
    config = {
        "transformer": official.official_transformer(TRANSFORMER),
        "vae": official.official_vae(VAE),
        "scheduler": official.official_scheduler(SCHEDULER),
    }
    tensors = {**_stored(dit, TRANSFORMER_PREFIX), **_stored(autoencoder, VAE_PREFIX)}
    _save(tensors, path, {"config": json.dumps(config)})


def save_text_encoder(folder: Path, encoder: nn.Module, config: Mapping[str, object]) -> None:
    """`config.json` and `model.safetensors` in the Hugging Face layout; the tokenizer stands beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    _save(_stored(encoder, ""), folder / "model.safetensors", {"format": "pt"})


def save_upsampler(path: Path, module: nn.Module) -> None:
    """The official latent upsampler's file: its own weights, without the autoencoder's statistics."""
    header = {
        "in_channels": LATENTS, "mid_channels": UPSAMPLER.mid_channels,
        "num_blocks_per_stage": UPSAMPLER.blocks,
        "dims": 3, "spatial_upsample": True, "temporal_upsample": False,
    }  # fmt: skip
    tensors = {n: t for n, t in _stored(module, "").items() if not n.startswith("per_channel_statistics")}
    _save(tensors, path, {"config": json.dumps(header)})


def _save(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    save_file(tensors, temporary, metadata)
    temporary.replace(path)


def transformer_module() -> transformer.Transformer:
    return transformer.Transformer(TRANSFORMER)


def text_module() -> t5.TextEncoder:
    return t5.TextEncoder(TEXT)


def upsampler_module() -> upsampler.LatentUpsampler:
    return upsampler.LatentUpsampler(UPSAMPLER)
