"""The diffusion transformer to be traced: its `forward` is the tensor contract.

Sees only tokens: number of frames, height and width are contained in the rotary tables. Parameter names are
the official checkpoint's. Reference: LTX-Video (arXiv 2501.00103) section 2.2; official
`ltx_video/models/transformers/transformer3d.py`; diffusers `transformer_ltx.py`.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ltxrt.export.graph.layers import CombinedTimestepEmbedder, Linear, RMSNorm, layer_norm, rms_norm
from ltxrt.export.ltxv.config import TransformerConfig

# Rows of `perturbation_mask` in the contract's order.
ATTENTION_VALUES, ATTENTION_SKIP, WHOLE_BLOCK = range(3)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Interleaved rotation of the full width in fp32; x (B,N,D), tables (B,N·H,D/H/2) for H heads.

    Every head has its own angles, but the operator gives all heads the same ones. So a token's heads are laid
    out in the operator's sequence axis: its "head" is a head of the model and not the full width, of which
    ONNX Runtime's CUDA kernel takes at most 1024.
    """
    rows = x.float().reshape(x.shape[0], 1, -1, 2 * cos.shape[-1])
    rotated = torch.onnx.ops.rotary_embedding(rows, cos, sin, interleaved=True)
    return rotated.reshape(x.shape).to(x.dtype)


class Attention(nn.Module):
    """Multi-head attention with RMS-normalised queries and keys over the full width."""

    def __init__(self, config: TransformerConfig, context_width: int) -> None:
        super().__init__()
        self.heads = config.heads
        self.to_q = Linear(config.width, config.width)
        self.to_k = Linear(context_width, config.width)
        self.to_v = Linear(context_width, config.width)
        self.to_out = nn.ModuleList([Linear(config.width, config.width)])
        # Attention's scale is in the norm's fp32 result: TensorRT's parser would multiply 16-bit queries and
        # keys by its square root, which rounds both.
        self.q_norm = RMSNorm(config.width, config.qk_norm_eps, factor=config.head_size**-0.5)
        self.k_norm = RMSNorm(config.width, config.qk_norm_eps)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attention with scaled queries; q (B,N,D), k and v (B,T,D), mask bool (B,1,N,T) → (B,N,D)."""
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (q, k, v))
        out = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=1.0)
        return out.transpose(1, 2).flatten(2)

    def project_out(self, x: Tensor) -> Tensor:
        (out,) = self.to_out
        return out(x)


class FeedForward(nn.Module):
    """Linear → GELU (tanh) → Linear, named `net.0.proj` and `net.2` as in the checkpoint."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.ModuleDict(
            {"0": nn.ModuleDict({"proj": Linear(width, 4 * width)}), "2": Linear(4 * width, width)}
        )

    def forward(self, x: Tensor) -> Tensor:
        inner = cast(nn.ModuleDict, self.net["0"])["proj"](x)
        return self.net["2"](functional.gelu(inner, approximate="tanh"))


class Modulation:
    """Rows of the time embedding per token: computed for K distinct timesteps, gathered for N tokens."""

    def __init__(self, embedding: Tensor, timestep_index: Tensor) -> None:
        batch, distinct, _ = embedding.shape
        self.embedding = embedding.flatten(0, 1)  # (B·K, rows·D)
        offsets = torch.arange(batch, device=embedding.device)[:, None] * distinct
        self.rows = (timestep_index + offsets).flatten()
        self.shape = timestep_index.shape

    def __call__(self, table: Tensor, factors: tuple[int, ...]) -> list[Tensor]:
        """`table` (R,D) plus the embedding, a (B,N,D) tensor per row, as 1 + row for those in `factors`.

        The 1 is added to K rows instead of N tokens.
        """
        values = (table.flatten() + self.embedding).split(table.shape[1], dim=1)
        rows = [1 + row if index in factors else row for index, row in enumerate(values)]
        return [row.index_select(0, self.rows).unflatten(0, self.shape) for row in rows]


class Block(nn.Module):
    """Self-attention, cross-attention, feed-forward; the first and last modulated by the timestep."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.eps = config.norm_eps
        self.attn1 = Attention(config, config.width)
        self.attn2 = Attention(config, config.cross_attention_width)
        self.ff = FeedForward(config.width)
        self.scale_shift_table = nn.Parameter(torch.empty(6, config.width))

    def forward(
        self,
        hidden: Tensor,
        modulation: Modulation,
        rope: tuple[Tensor, Tensor],
        text: tuple[Tensor, Tensor],
        keep: Tensor,
        ones: Tensor,
    ) -> Tensor:
        """hidden (B,N,D); rope as for `rotate`; text (B,T,D) with mask (B,1,N,T); keep bool (3,B,1,1)."""
        rows = modulation(self.scale_shift_table, factors=(1, 4))
        shift_msa, factor_msa, gate_msa, shift_mlp, factor_mlp, gate_mlp = rows
        start = hidden
        x = rms_norm(hidden, ones, self.eps) * factor_msa + shift_msa
        hidden = hidden + gate_msa * self.self_attention(x, rope, keep)
        hidden = hidden + self.cross_attention(hidden, *text)
        x = rms_norm(hidden, ones, self.eps) * factor_mlp + shift_mlp
        hidden = hidden + gate_mlp * self.ff(x)
        return torch.where(keep[WHOLE_BLOCK], hidden, start)

    def self_attention(self, x: Tensor, rope: tuple[Tensor, Tensor], keep: Tensor) -> Tensor:
        """Rotary self-attention; perturbed samples return their values or input (STG, arXiv 2411.18664)."""
        attn = self.attn1
        value = attn.to_v(x)
        q = rotate(attn.q_norm(attn.to_q(x)), *rope)
        k = rotate(attn.k_norm(attn.to_k(x)), *rope)
        out = torch.where(keep[ATTENTION_VALUES], attn.attend(q, k, value), value)
        return attn.project_out(torch.where(keep[ATTENTION_SKIP], out, x))

    def cross_attention(self, x: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        attn = self.attn2
        q, k = attn.q_norm(attn.to_q(x)), attn.k_norm(attn.to_k(text))
        return attn.project_out(attn.attend(q, k, attn.to_v(text), mask))


class CaptionProjection(nn.Module):
    def __init__(self, in_width: int, width: int) -> None:
        super().__init__()
        self.linear_1 = Linear(in_width, width)
        self.linear_2 = Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear_2(functional.gelu(self.linear_1(x), approximate="tanh"))


class AdaLayerNormSingle(nn.Module):
    """Time embedding shared by all blocks: e (M,D) and its six-fold projection (M,6D)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.emb = CombinedTimestepEmbedder(width)
        self.linear = Linear(width, 6 * width)

    def forward(self, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        embedded = self.emb(timesteps)
        return self.linear(functional.silu(embedded)), embedded


class Transformer(nn.Module):
    """Latent tokens to velocity, as `ltxrt.engines.contract.transformer` says."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.patchify_proj = Linear(config.in_channels, config.width)
        self.adaln_single = AdaLayerNormSingle(config.width)
        self.caption_projection = CaptionProjection(config.caption_channels, config.cross_attention_width)
        self.transformer_blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.scale_shift_table = nn.Parameter(torch.empty(2, config.width))
        self.proj_out = Linear(config.width, config.out_channels)
        self.ones: Tensor
        self.register_buffer("ones", torch.empty(config.width, dtype=torch.float32))

    def forward(
        self,
        latents: Tensor,
        timesteps: Tensor,
        timestep_index: Tensor,
        context: Tensor,
        context_mask: Tensor,
        rope_cos: Tensor,
        rope_sin: Tensor,
        perturbation_mask: Tensor,
    ) -> Tensor:
        dtype = self.patchify_proj.weight.dtype
        batch, tokens, _ = latents.shape
        projected, embedded = self.adaln_single((timesteps * self.config.timestep_scale).flatten())
        shape = timesteps.shape
        blocks = Modulation(projected.unflatten(0, shape), timestep_index)
        head = Modulation(torch.cat([embedded, embedded], dim=-1).unflatten(0, shape), timestep_index)
        pairs = self.config.head_size // 2
        cos, sin = (table.reshape(1, -1, pairs).expand(batch, -1, -1) for table in (rope_cos, rope_sin))
        mask = context_mask[:, None, None, :].expand(-1, -1, tokens, -1)
        text = (self.caption_projection(context.to(dtype)), mask)
        keep = perturbation_mask[:, :, :, None, None]

        hidden = self.patchify_proj(latents.to(dtype))
        for index, block in enumerate(self.transformer_blocks):
            hidden = block(hidden, blocks, (cos, sin), text, keep[index], self.ones)
        shift, factor = head(self.scale_shift_table, factors=(1,))
        normed = layer_norm(hidden, self.ones, self.config.norm_eps)
        hidden = normed * factor + shift
        return self.proj_out(hidden).float()


def constants(config: TransformerConfig) -> dict[str, Tensor]:
    """The buffers that checkpoints do not contain, by name."""
    return {"ones": torch.ones(config.width)}
