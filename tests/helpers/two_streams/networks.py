"""The networks, as they are traced: a reader of bytes, a denoiser of two streams, a speaker."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ltxrt.export.graph.layers import Linear, RMSNorm, TimestepEmbedder


@dataclass(frozen=True)
class ReaderConfig:
    """Bytes to features."""

    width: int = 16
    layers: int = 2

    @property
    def depth(self) -> int:
        return self.layers


@dataclass(frozen=True)
class DenoiserConfig:
    """Two streams of one width each, with channels of their own."""

    layers: int = 3
    heads: int = 2
    head_size: int = 64
    video_channels: int = 6
    sound_channels: int = 5
    text_width: int = 16

    @property
    def width(self) -> int:
        return self.heads * self.head_size

    @property
    def depth(self) -> int:
        return self.layers


@dataclass(frozen=True)
class SpeakerConfig:
    """Sound tokens to samples, `stride` for each."""

    channels: int = 5
    stride: int = 4
    depth: int = 1


class Reader(nn.Module):
    def __init__(self, config: ReaderConfig) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty(256, config.width))
        self.layers = nn.ModuleList(Linear(config.width, config.width) for _ in range(config.layers))

    def forward(self, text_bytes: Tensor) -> Tensor:
        x = functional.embedding(text_bytes, self.table)
        for layer in self.layers:
            x = x + functional.silu(layer(x))
        return x.float()


class Attention(nn.Module):
    """Queries of one stream, keys and values of the same or of what it is told."""

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.q, self.k, self.v, self.out = (Linear(config.width, config.width) for _ in range(4))
        self.norm = RMSNorm(config.width, 1e-6, factor=config.head_size**-0.5)

    def forward(self, x: Tensor, read: Tensor) -> Tensor:
        heads = [y.unflatten(-1, (self.heads, -1)).transpose(1, 2) for y in (self.k(read), self.v(read))]
        q = self.norm(self.q(x)).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        out = functional.scaled_dot_product_attention(q, *heads, scale=1.0)
        return self.out(out.transpose(1, 2).flatten(2))


class Stream(nn.Module):
    """One stream's half of a block."""

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        self.own, self.cross = Attention(config), Attention(config)

    def forward(self, x: Tensor, told: Tensor, own: Tensor, cross: Tensor) -> Tensor:
        """x (B,·,D), told (B,·,D): the text and the other stream; own, cross: bool (B,1,1), which to keep."""
        x = torch.where(own, x + self.own(x, x), x)
        return torch.where(cross, x + self.cross(x, told), x)


class Block(nn.Module):
    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        self.video, self.sound = Stream(config), Stream(config)

    def forward(self, video: Tensor, sound: Tensor, text: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
        rows = keep[:, :, None, None].unbind(0)
        after = self.video(video, torch.cat([text, sound], dim=1), rows[0], rows[2])
        return after, self.sound(sound, torch.cat([text, video], dim=1), rows[1], rows[3])


class Denoiser(nn.Module):
    """Tokens of both streams to their velocities."""

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        self.video_in = Linear(config.video_channels, config.width)
        self.sound_in = Linear(config.sound_channels, config.width)
        self.text_in = Linear(config.text_width, config.width)
        self.noise = TimestepEmbedder(config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.video_out = Linear(config.width, config.video_channels)
        self.sound_out = Linear(config.width, config.sound_channels)

    def forward(
        self, video: Tensor, sound: Tensor, noise_levels: Tensor, features: Tensor, keep_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        dtype = self.video_in.weight.dtype
        levels = self.noise(noise_levels.flatten() * 1000).unflatten(0, noise_levels.shape)
        x = self.video_in(video.to(dtype)) + levels[:, :1]
        y = self.sound_in(sound.to(dtype)) + levels[:, 1:]
        text = self.text_in(features.to(dtype))
        for index, block in enumerate(self.blocks):
            x, y = block(x, y, text, keep_mask[index])
        return self.video_out(x).float(), self.sound_out(y).float()


class Speaker(nn.Module):
    def __init__(self, config: SpeakerConfig) -> None:
        super().__init__()
        self.conv = nn.Conv1d(config.channels, config.stride, 3, padding=1)

    def forward(self, sound: Tensor) -> Tensor:
        x = self.conv(sound.transpose(1, 2).to(self.conv.weight.dtype))
        return torch.tanh(x).transpose(1, 2).flatten(1).float()
