"""Configs from which a component's traced module is built: complete, without defaults or version names.

Made from an official config, a diffusers config or tensor shapes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class TransformerConfig:
    """The diffusion transformer (official class `Transformer3DModel`)."""

    layers: int
    heads: int
    head_size: int
    in_channels: int
    out_channels: int
    cross_attention_width: int  # width of the projected caption, the input of attn2
    caption_channels: int  # width of the text encoder's hidden states
    rope_theta: float = 10000.0
    rope_max_positions: tuple[float, float, float] = (20.0, 2048.0, 2048.0)
    causal_rope: bool = False
    timestep_scale: float = 1000.0
    norm_eps: float = 1e-6
    qk_norm_eps: float = 1e-5

    @property
    def depth(self) -> int:
        """The number of blocks, each with its own tensors; the other configs have it as well."""
        return self.layers

    @property
    def width(self) -> int:
        return self.heads * self.head_size


@dataclass(frozen=True)
class VaeBlock:
    """One entry of `encoder.down_blocks` or `decoder.up_blocks`; its index there is its index in the tuple.

    kind: `res` a group of `layers` residual blocks of equal width; `res_xy` one residual block that changes
    the width; `conv` a strided causal convolution; `space_to_depth` / `depth_to_space` a convolution with a
    rearrangement between channels and space and time by `stride` (t, h, w).
    """

    kind: str
    in_channels: int
    out_channels: int
    layers: int = 0
    stride: tuple[int, int, int] = (1, 1, 1)
    residual: bool = False  # depth_to_space: add the rearranged input (space_to_depth always does)
    inject_noise: bool = False  # res: two Gaussian maps per residual block


@dataclass(frozen=True)
class VaeConfig:
    """The video autoencoder (official class `CausalVideoAutoencoder`), blocks in the order of execution."""

    latent_channels: int
    patch_size: int
    encoder_blocks: tuple[VaeBlock, ...]
    decoder_blocks: tuple[VaeBlock, ...]
    timestep_conditioning: bool
    image_channels: int = 3
    norm_eps: float = 1e-8

    @property
    def depth(self) -> int:
        return sum(max(1, block.layers) for block in (*self.encoder_blocks, *self.decoder_blocks))

    @property
    def spatial_compression(self) -> int:
        """Pixels per latent, along height and along width."""
        return self.patch_size * math.prod(b.stride[1] for b in self.encoder_blocks)

    @property
    def temporal_compression(self) -> int:
        """Pixel frames per latent frame, after the first."""
        return math.prod(b.stride[0] for b in self.encoder_blocks)


@dataclass(frozen=True)
class UpsamplerConfig:
    """A latent upsampler (official class `LatentUpsampler`): twice height and width, or frames."""

    latent_channels: int
    mid_channels: int
    blocks: int  # residual blocks before and again after the upsampling
    temporal: bool = False

    @property
    def depth(self) -> int:
        return 2 * self.blocks


@dataclass(frozen=True)
class TextEncoderConfig:
    """The T5 v1.1 encoder (transformers class `T5EncoderModel`)."""

    width: int
    layers: int
    heads: int
    head_size: int
    ff_width: int
    vocab_size: int
    relative_buckets: int = 32
    relative_max_distance: int = 128
    norm_eps: float = 1e-6

    @property
    def depth(self) -> int:
        return self.layers
