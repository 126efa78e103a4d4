"""The video autoencoder's two halves to be traced. Parameter names are the official checkpoint's.

The encoder is causal in time, the decoder is not: its convolutions read one future frame. Latents outside of
both are normalised by the checkpoint's per-channel statistics. Reference: LTX-Video (arXiv 2501.00103)
section 2.1; official `causal_video_autoencoder.py`; diffusers `autoencoder_kl_ltx.py`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from ltxrt.export.graph.layers import CombinedTimestepEmbedder
from ltxrt.export.ltxv.config import VaeBlock, VaeConfig

Stride = tuple[int, int, int]
Noise = Iterator[Tensor] | None  # noise maps that are not used yet


class CausalConv3d(nn.Module):
    """3×3×3 convolution whose time padding repeats the edge frames: two before, or one on each side."""

    def __init__(self, in_channels: int, out_channels: int, causal: bool, stride: Stride = (1, 1, 1)) -> None:
        super().__init__()
        self.causal = causal
        self.conv = nn.Conv3d(in_channels, out_channels, 3, stride=stride, padding=(0, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(repeat_edges(x, 2, 0) if self.causal else repeat_edges(x, 1, 1))


def repeat_edges(x: Tensor, before: int, after: int) -> Tensor:
    """Prepends `before` copies of the first frame and appends `after` of the last, (B,C,F,H,W).

    Concatenated instead of padded: ONNX Runtime has no CUDA kernel that pads bf16.
    """
    return torch.cat([frames(x, 0, 1)] * before + [x] + [frames(x, -1)] * after, dim=2)


def frames(x: Tensor, start: int, end: int = sys.maxsize) -> Tensor:
    """x[:, :, start:end] as one operator; the notation makes one per axis, with copies."""
    return torch.ops.aten.slice(x, 2, start, end)


def pixel_norm(x: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean over channels of x² + eps), fp32 statistics, (B,C,F,H,W)."""
    wide = x.float()
    return (wide * torch.rsqrt(wide.square().mean(1, keepdim=True) + eps)).to(x.dtype)


def fold_space_time(x: Tensor, stride: Stride) -> Tensor:
    """Space and time into channels: (B,C,F,H,W) → (B, C·t·h·w, F/t, H/h, W/w), channel order (c t h w)."""
    t, h, w = stride
    x = x.unflatten(4, (-1, w)).unflatten(3, (-1, h)).unflatten(2, (-1, t))
    return x.permute(0, 1, 3, 5, 7, 2, 4, 6).flatten(1, 4)


def unfold_space_time(x: Tensor, stride: Stride) -> Tensor:
    """Channels (c t h w) into space and time, the inverse of `fold_space_time`."""
    x = x.unflatten(1, (-1, *stride)).permute(0, 1, 5, 2, 6, 3, 7, 4)
    return x.flatten(6, 7).flatten(4, 5).flatten(2, 3)


class ChannelLayerNorm(nn.Module):
    """Layer norm over channels, under the checkpoint's name `norm`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.norm.weight.float(), self.norm.bias.float()
        y = functional.layer_norm(x.movedim(1, -1).float(), weight.shape, weight, bias, self.norm.eps)
        return y.to(x.dtype).movedim(-1, 1)


class ResBlock(nn.Module):
    """Two normalised convolutions with a shortcut, optionally modulated by the timestep and given noise."""

    def __init__(self, block: VaeBlock, eps: float, causal: bool, timestep_conditioning: bool) -> None:
        super().__init__()
        channels, out_channels = block.in_channels, block.out_channels
        self.eps = eps
        self.conv1 = CausalConv3d(channels, out_channels, causal)
        self.conv2 = CausalConv3d(out_channels, out_channels, causal)
        self.changes_width = channels != out_channels
        if self.changes_width:
            self.norm3 = ChannelLayerNorm(channels)
            self.conv_shortcut = nn.Conv3d(channels, out_channels, 1)
        self.inject_noise = block.inject_noise
        if block.inject_noise:
            self.per_channel_scale1 = nn.Parameter(torch.empty(channels, 1, 1))
            self.per_channel_scale2 = nn.Parameter(torch.empty(channels, 1, 1))
        self.modulated = timestep_conditioning
        if timestep_conditioning:
            self.scale_shift_table = nn.Parameter(torch.empty(4, channels))

    def forward(self, x: Tensor, embedding: Tensor | None, noise: Noise) -> Tensor:
        shift1 = scale1 = shift2 = scale2 = None
        if self.modulated and embedding is not None:
            shift1, scale1, shift2, scale2 = modulation(self.scale_shift_table, embedding)
        y = self.conv1(activate(pixel_norm(x, self.eps), shift1, scale1))
        if self.inject_noise and noise is not None:
            y = y + (next(noise) * self.per_channel_scale1)[None, :, None]
        y = self.conv2(activate(pixel_norm(y, self.eps), shift2, scale2))
        if self.inject_noise and noise is not None:
            y = y + (next(noise) * self.per_channel_scale2)[None, :, None]
        return y + (self.conv_shortcut(self.norm3(x)) if self.changes_width else x)


def modulation(table: Tensor, embedding: Tensor) -> tuple[Tensor, ...]:
    """Rows of `table` (R,C) plus embedding (B, R·C), each (B,C,1,1,1)."""
    rows = table.flatten() + embedding
    return rows.unflatten(1, (-1, 1, 1, 1)).split(table.shape[1], dim=1)


def activate(x: Tensor, shift: Tensor | None, scale: Tensor | None) -> Tensor:
    """SiLU after an optional modulation."""
    if shift is not None and scale is not None:
        x = x * (1 + scale) + shift
    return functional.silu(x)


class ResGroup(nn.Module):
    """`layers` residual blocks of equal width; in a timestep-conditioned decoder with their own embedder."""

    def __init__(self, block: VaeBlock, eps: float, causal: bool, timestep_conditioning: bool) -> None:
        super().__init__()
        self.conditioned = timestep_conditioning
        if timestep_conditioning:
            self.time_embedder = CombinedTimestepEmbedder(4 * block.in_channels)
        self.res_blocks = nn.ModuleList(
            ResBlock(block, eps, causal, timestep_conditioning) for _ in range(block.layers)
        )

    def forward(self, x: Tensor, timestep: Tensor | None, noise: Noise) -> Tensor:
        embedding = self.time_embedder(timestep) if self.conditioned else None
        for block in self.res_blocks:
            x = block(x, embedding, noise)
        return x


class StridedConv(CausalConv3d):
    def forward(self, x: Tensor, timestep: Tensor | None = None, noise: Noise = None) -> Tensor:
        return super().forward(x)


class SpaceToDepth(nn.Module):
    """A convolution rearranged into channels, plus the rearranged input averaged over groups of channels."""

    def __init__(self, block: VaeBlock) -> None:
        super().__init__()
        t, h, w = self.stride = block.stride
        self.group = block.in_channels * t * h * w // block.out_channels
        self.conv = CausalConv3d(block.in_channels, block.out_channels // (t * h * w), causal=True)

    def forward(self, x: Tensor, timestep: Tensor | None = None, noise: Noise = None) -> Tensor:
        if self.stride[0] == 2:
            x = repeat_edges(x, 1, 0)
        mean = fold_space_time(x, self.stride).unflatten(1, (-1, self.group)).mean(2)
        return fold_space_time(self.conv(x), self.stride) + mean


class DepthToSpace(nn.Module):
    """A convolution rearranged into space and time; the residual form adds the rearranged input, repeated."""

    def __init__(self, block: VaeBlock) -> None:
        super().__init__()
        t, h, w = self.stride = block.stride
        self.repeats = block.out_channels * t * h * w // block.in_channels if block.residual else 0
        self.conv = CausalConv3d(block.in_channels, block.out_channels * t * h * w, causal=False)

    def forward(self, x: Tensor, timestep: Tensor | None = None, noise: Noise = None) -> Tensor:
        y = unfold_space_time(self.conv(x), self.stride)
        if self.repeats:
            y = y + unfold_space_time(x, self.stride).repeat(1, self.repeats, 1, 1, 1)
        # The first latent frame encodes one pixel frame, not two.
        return frames(y, self.stride[0] - 1)


class SingleResBlock(ResBlock):
    """The residual block that changes the width: unconditioned, an entry of its own in the block list."""

    def __init__(self, block: VaeBlock, eps: float, causal: bool) -> None:
        super().__init__(block, eps, causal, timestep_conditioning=False)

    def forward(self, x: Tensor, timestep: Tensor | None = None, noise: Noise = None) -> Tensor:
        return super().forward(x, None, noise)


def build_block(block: VaeBlock, config: VaeConfig, decoder: bool) -> nn.Module:
    """The module of one block-list entry."""
    if block.kind == "res":
        return ResGroup(block, config.norm_eps, not decoder, decoder and config.timestep_conditioning)
    if block.kind == "res_xy":
        return SingleResBlock(block, config.norm_eps, causal=not decoder)
    if block.kind == "conv":
        return StridedConv(block.in_channels, block.out_channels, True, block.stride)
    return SpaceToDepth(block) if block.kind == "space_to_depth" else DepthToSpace(block)


class LatentStatistics(nn.Module):
    """Per-channel mean and deviation of the latents, fp32 in every precision; their names contain a dash."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_parameter("mean-of-means", nn.Parameter(torch.empty(channels, dtype=torch.float32)))
        self.register_parameter("std-of-means", nn.Parameter(torch.empty(channels, dtype=torch.float32)))

    def rows(self) -> tuple[Tensor, Tensor]:
        mean, std = getattr(self, "mean-of-means"), getattr(self, "std-of-means")
        return mean[None, :, None, None, None], std[None, :, None, None, None]


class Encoder(nn.Module):
    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        self.config = config
        blocks = config.encoder_blocks
        self.conv_in = CausalConv3d(config.image_channels * config.patch_size**2, blocks[0].in_channels, True)
        self.down_blocks = nn.ModuleList(build_block(b, config, decoder=False) for b in blocks)
        # One channel more than the latents: the log variance, which the posterior's mean does not need.
        self.conv_out = CausalConv3d(blocks[-1].out_channels, config.latent_channels + 1, True)

    def forward(self, pixels: Tensor) -> Tensor:
        p = self.config.patch_size
        # The official patchify's order: channels (c, width, height), the width varies slower than the height.
        x = pixels.unflatten(4, (-1, p)).unflatten(3, (-1, p)).permute(0, 1, 6, 4, 2, 3, 5).flatten(1, 3)
        x = self.conv_in(x.to(self.conv_in.conv.weight.dtype))
        for block in self.down_blocks:
            x = block(x, None, None)
        x = self.conv_out(functional.silu(pixel_norm(x, self.config.norm_eps)))
        return x[:, : self.config.latent_channels]


class Decoder(nn.Module):
    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        self.config = config
        blocks = config.decoder_blocks
        width = blocks[-1].out_channels
        self.conv_in = CausalConv3d(config.latent_channels, blocks[0].in_channels, False)
        self.up_blocks = nn.ModuleList(build_block(b, config, decoder=True) for b in blocks)
        self.conv_out = CausalConv3d(width, config.image_channels * config.patch_size**2, False)
        if config.timestep_conditioning:
            self.timestep_scale_multiplier = nn.Parameter(torch.empty((), dtype=torch.float32))
            self.last_time_embedder = CombinedTimestepEmbedder(2 * width)
            self.last_scale_shift_table = nn.Parameter(torch.empty(2, width))

    def forward(self, latents: Tensor, timestep: Tensor | None, noise: Iterator[Tensor]) -> Tensor:
        x = self.conv_in(latents.to(self.conv_in.conv.weight.dtype))
        if timestep is not None:
            timestep = timestep * self.timestep_scale_multiplier.float()
        for block in self.up_blocks:
            x = block(x, timestep, noise)
        x, shift, scale = pixel_norm(x, self.config.norm_eps), None, None
        if timestep is not None:
            shift, scale = modulation(self.last_scale_shift_table, self.last_time_embedder(timestep))
        x = self.conv_out(activate(x, shift, scale)).float()
        p = self.config.patch_size
        x = x.unflatten(1, (-1, p, p)).permute(0, 1, 4, 5, 3, 6, 2)
        return x.flatten(5, 6).flatten(3, 4)


class VaeEncoder(nn.Module):
    """Pixels to normalised latents, as `ltxrt.engines.contract.vae_encoder` says."""

    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        self.encoder = Encoder(config)
        self.per_channel_statistics = LatentStatistics(config.latent_channels)

    def forward(self, pixels: Tensor) -> Tensor:
        mean, std = self.per_channel_statistics.rows()
        return (self.encoder(pixels).float() - mean.float()) / std.float()


class VaeDecoder(nn.Module):
    """Normalised latents to pixels, as `ltxrt.engines.contract.vae_decoder` says.

    A noise map's first axis has the maps of one resolution in the order in which blocks use them.
    """

    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        self.decoder = Decoder(config)
        self.per_channel_statistics = LatentStatistics(config.latent_channels)

    def forward(
        self,
        latents: Tensor,
        timestep: Tensor | None = None,
        noise_1x: Tensor | None = None,
        noise_2x: Tensor | None = None,
        noise_4x: Tensor | None = None,
        noise_8x: Tensor | None = None,
    ) -> Tensor:
        mean, std = self.per_channel_statistics.rows()
        dtype = self.decoder.conv_in.conv.weight.dtype
        groups = (g.to(dtype) for g in (noise_1x, noise_2x, noise_4x, noise_8x) if g is not None)
        maps = (m for group in groups for m in group.unbind(0))
        return self.decoder(latents * std.float() + mean.float(), timestep, maps)
