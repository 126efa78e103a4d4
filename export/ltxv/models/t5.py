"""The T5 v1.1 encoder to be traced. Parameter names are those of transformers' `T5EncoderModel`.

Reference: T5 (arXiv 1910.10683) section 2.1; v1.1: gated GELU, no biases, no attention scaling, a relative
position bias table in the first layer that all layers share.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ltxrt.export.graph.layers import Linear, RMSNorm
from ltxrt.export.ltxv.config import TextEncoderConfig


def relative_buckets(buckets: int, max_distance: int) -> Tensor:
    """Bucket of every distance (key − query) in −max_distance..max_distance, int64 (2·max_distance+1,).

    All distances beyond the maximum share a bucket, so a table can replace the logarithm, which another
    backend may round into the neighbouring bucket.
    """
    distance = torch.arange(-max_distance, max_distance + 1)
    half = buckets // 2
    exact = half // 2
    size = distance.abs()
    log = torch.log(size.clamp(min=1).float() / exact) / math.log(max_distance / exact)
    coarse = (exact + (log * (half - exact)).long()).clamp(max=half - 1)
    return torch.where(size < exact, size, coarse) + (distance > 0).long() * half


def embedding(rows: int, width: int) -> nn.Embedding:
    """An embedding without random initialisation, whose first use on the meta device takes two seconds."""
    return nn.Embedding.from_pretrained(torch.empty(rows, width), freeze=False)


class SelfAttention(nn.Module):
    def __init__(self, config: TextEncoderConfig, has_bias: bool) -> None:
        super().__init__()
        self.config = config
        inner = config.heads * config.head_size
        self.q = Linear(config.width, inner, bias=False)
        self.k = Linear(config.width, inner, bias=False)
        self.v = Linear(config.width, inner, bias=False)
        self.o = Linear(inner, config.width, bias=False)
        if has_bias:
            self.relative_attention_bias = embedding(config.relative_buckets, config.heads)
            distances = 2 * config.relative_max_distance + 1
            self.buckets: Tensor
            self.register_buffer("buckets", torch.empty(distances, dtype=torch.int64))

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        q, k, v = (
            p(x).unflatten(-1, (self.config.heads, -1)).transpose(1, 2) for p in (self.q, self.k, self.v)
        )
        out = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=1.0)
        return self.o(out.transpose(1, 2).flatten(2))

    def position_bias(self, tokens: int) -> Tensor:
        """(1, heads, T, T): the learned bias of every pair's distance."""
        far = self.config.relative_max_distance
        position = torch.arange(tokens, device=self.relative_attention_bias.weight.device)
        distance = (position[None, :] - position[:, None]).clamp(-far, far) + far
        buckets = self.buckets.index_select(0, distance.flatten()).unflatten(0, distance.shape)
        return self.relative_attention_bias(buckets).permute(2, 0, 1).unsqueeze(0)


class AttentionLayer(nn.Module):
    def __init__(self, config: TextEncoderConfig, has_bias: bool) -> None:
        super().__init__()
        self.SelfAttention = SelfAttention(config, has_bias)
        self.layer_norm = RMSNorm(config.width, config.norm_eps)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        return x + self.SelfAttention(self.layer_norm(x), bias)


class GatedFeedForward(nn.Module):
    def __init__(self, config: TextEncoderConfig) -> None:
        super().__init__()
        self.wi_0 = Linear(config.width, config.ff_width, bias=False)
        self.wi_1 = Linear(config.width, config.ff_width, bias=False)
        self.wo = Linear(config.ff_width, config.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.wo(functional.gelu(self.wi_0(x), approximate="tanh") * self.wi_1(x))


class FeedForwardLayer(nn.Module):
    def __init__(self, config: TextEncoderConfig) -> None:
        super().__init__()
        self.DenseReluDense = GatedFeedForward(config)
        self.layer_norm = RMSNorm(config.width, config.norm_eps)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        return x + self.DenseReluDense(self.layer_norm(x))


class T5Block(nn.Module):
    def __init__(self, config: TextEncoderConfig, has_bias: bool) -> None:
        super().__init__()
        self.layer = nn.ModuleList([AttentionLayer(config, has_bias), FeedForwardLayer(config)])

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        for layer in self.layer:
            x = layer(x, bias)
        return x


class T5Stack(nn.Module):
    def __init__(self, config: TextEncoderConfig) -> None:
        super().__init__()
        self.block = nn.ModuleList(T5Block(config, has_bias=i == 0) for i in range(config.layers))
        self.final_layer_norm = RMSNorm(config.width, config.norm_eps)

    def forward(self, x: Tensor, attention_mask: Tensor) -> Tensor:
        first = cast(T5Block, self.block[0]).layer[0]
        bias = cast(AttentionLayer, first).SelfAttention.position_bias(x.shape[1])
        # Half the lowest finite number: adding the bias cannot overflow, and its exponential is zero.
        hidden = torch.where(attention_mask[:, None, None, :] > 0, 0.0, torch.finfo(x.dtype).min / 2)
        mask = bias.to(x.dtype) + hidden.to(x.dtype)
        for block in self.block:
            x = block(x, mask)
        return self.final_layer_norm(x)


class TextEncoder(nn.Module):
    """Token ids to hidden states, as `ltxrt.engines.contract.text_encoder` says."""

    def __init__(self, config: TextEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.shared = embedding(config.vocab_size, config.width)
        self.encoder = T5Stack(config)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.encoder(self.shared(input_ids), attention_mask).float()


RESIDUAL = 2.0**-6  # allows activations up to 4 million in fp16; those of T5-XXL exceed 65 504
GATE = 2.0**-3


def fp16_scales(config: TextEncoderConfig) -> dict[str, float]:
    """Factors for the weights with which T5 in fp16 computes the same function without overflow.

    What is added to the residual stream (embedding, attention output, feed-forward output) is scaled by
    RESIDUAL; each layer reads the stream through an RMS norm, whose result is the same if its epsilon is
    scaled by RESIDUAL² (`fp16_config`). GATE scales one factor of the gated product. All are powers of two,
    which cause no rounding.
    """
    scales = {"shared.weight": RESIDUAL}
    for i in range(config.layers):
        layer = f"encoder.block.{i}.layer"
        scales[f"{layer}.0.SelfAttention.o.weight"] = RESIDUAL
        scales[f"{layer}.1.DenseReluDense.wi_1.weight"] = GATE
        scales[f"{layer}.1.DenseReluDense.wo.weight"] = RESIDUAL / GATE
    return scales


def fp16_config(config: TextEncoderConfig) -> TextEncoderConfig:
    """The config of the network whose weights are scaled by `fp16_scales`."""
    return replace(config, norm_eps=config.norm_eps * RESIDUAL**2)


def constants(config: TextEncoderConfig) -> dict[str, Tensor]:
    """The buffers that checkpoints do not contain, by name."""
    buckets = relative_buckets(config.relative_buckets, config.relative_max_distance)
    return {"encoder.block.0.layer.0.SelfAttention.buckets": buckets}
