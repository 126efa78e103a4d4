"""The latent upsamplers to be traced. Parameter names are the official checkpoint's.

The network works on unnormalised latents; with the statistics in the graph, inputs and outputs are
normalised. Reference: official `latent_upsampler.py`; diffusers `modeling_latent_upsampler.py`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ltxrt.export.ltxv.config import UpsamplerConfig
from ltxrt.export.ltxv.models.vae import LatentStatistics, frames, unfold_space_time

GROUPS, EPS = 32, 1e-5


class GroupNorm(nn.Module):
    """Group norm over groups of channels and all cells, in fp32, cast back to the input's dtype."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels))
        self.bias = nn.Parameter(torch.empty(channels))

    def forward(self, x: Tensor) -> Tensor:
        y = functional.group_norm(x.float(), GROUPS, self.weight.float(), self.bias.float(), EPS)
        return y.to(x.dtype)


class ResBlock(nn.Module):
    """Two convolutions with a shortcut, (B,C,f,h,w)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(channels, channels, 3, padding=1)
        self.norm1 = GroupNorm(channels)
        self.conv2 = nn.Conv3d(channels, channels, 3, padding=1)
        self.norm2 = GroupNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.silu(self.norm1(self.conv1(x)))
        return functional.silu(self.norm2(self.conv2(y)) + x)


class SpatialShuffle(nn.Module):
    """A convolution over each frame whose channels (c h w) become twice the height and width."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.add_module("0", nn.Conv2d(channels, 4 * channels, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        y = x.transpose(1, 2).flatten(0, 1)
        y = self.get_submodule("0")(y).unflatten(0, (-1, x.shape[2])).transpose(1, 2)
        return unfold_space_time(y, (1, 2, 2))


class TemporalShuffle(nn.Module):
    """A convolution whose channels (c t) become twice the frames, without the first: 2f − 1."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.add_module("0", nn.Conv3d(channels, 2 * channels, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        return frames(unfold_space_time(self.get_submodule("0")(x), (2, 1, 1)), 1)


class LatentUpsampler(nn.Module):
    """Latents to larger latents, as `ltxrt.engines.contract` says of both kinds of upsampler."""

    def __init__(self, config: UpsamplerConfig) -> None:
        super().__init__()
        width = config.mid_channels
        self.initial_conv = nn.Conv3d(config.latent_channels, width, 3, padding=1)
        self.initial_norm = GroupNorm(width)
        self.res_blocks = nn.ModuleList(ResBlock(width) for _ in range(config.blocks))
        self.upsampler = TemporalShuffle(width) if config.temporal else SpatialShuffle(width)
        self.post_upsample_res_blocks = nn.ModuleList(ResBlock(width) for _ in range(config.blocks))
        self.final_conv = nn.Conv3d(width, config.latent_channels, 3, padding=1)
        self.per_channel_statistics = LatentStatistics(config.latent_channels)

    def forward(self, latents: Tensor) -> Tensor:
        mean, std = (row.float() for row in self.per_channel_statistics.rows())
        x = self.initial_conv((latents * std + mean).to(self.initial_conv.weight.dtype))
        x = functional.silu(self.initial_norm(x))
        for block in self.res_blocks:
            x = block(x)
        x = self.upsampler(x)
        for block in self.post_upsample_res_blocks:
            x = block(x)
        return (self.final_conv(x).float() - mean) / std
