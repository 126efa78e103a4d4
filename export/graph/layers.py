"""Layers shared by the traced modules. Knows nothing of checkpoints or ONNX files.

Two rules hold for all of them. Weights of a MatMul are stored as it reads them, (in, out), so that no backend
has to transpose gigabytes on load. Norm statistics, sinusoids and rotations are computed in fp32 for every
dtype of the module: with bf16 statistics an affine-free RMS norm reduces the latents' deviation by a fifth.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from ltxrt.engines.errors import CheckpointError


class Linear(nn.Module):
    """`x @ weight + bias` with `weight` (in, out): the transpose of torch's and of the checkpoint's."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(in_features, out_features))
        self.bias = nn.Parameter(torch.empty(out_features)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        y = x @ self.weight
        return y if self.bias is None else y + self.bias


def transposed_weights(module: nn.Module) -> frozenset[str]:
    """Names of the parameters that are the transpose of the checkpoint's."""
    return frozenset(f"{name}.weight" for name, part in module.named_modules() if isinstance(part, Linear))


def stored_shapes(build: Callable[[], nn.Module]) -> dict[str, tuple[int, ...]]:
    """Every weight of `build()`'s module: name → shape in the checkpoint (Linear is (out, in)).

    Nothing is allocated. Raises CheckpointError for sizes that torch cannot address.
    """
    try:
        with torch.device("meta"):
            module = build()
    except (RuntimeError, TypeError, OverflowError) as error:  # what torch raises when a size overflows
        raise CheckpointError(f"the config's sizes are impossible ({str(error).splitlines()[0]})") from error
    transposed = transposed_weights(module)
    shapes = {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}
    return {name: shape[::-1] if name in transposed else shape for name, shape in shapes.items()}


class RMSNorm(nn.Module):
    """x / sqrt(mean(x²) + eps) · weight · factor over the last axis, in fp32, cast to the input's dtype."""

    def __init__(self, width: int, eps: float, factor: float = 1.0) -> None:
        super().__init__()
        self.eps, self.factor = eps, factor
        self.weight = nn.Parameter(torch.empty(width))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.float() if self.factor == 1.0 else self.weight.float() * self.factor
        return functional.rms_norm(x.float(), self.weight.shape, weight, self.eps).to(x.dtype)


def rms_norm(x: Tensor, ones: Tensor, eps: float) -> Tensor:
    """RMS norm over the last axis without an affine part.

    `ones` (D,) fp32 is the weight, which the ONNX operator requires; without one, the exporter creates a
    tensor of the input's shape in every call.
    """
    return functional.rms_norm(x.float(), ones.shape, ones, eps).to(x.dtype)


def layer_norm(x: Tensor, ones: Tensor, eps: float) -> Tensor:
    """Layer norm over the last axis without an affine part; `ones` as for `rms_norm`."""
    return functional.layer_norm(x.float(), ones.shape, ones, None, eps).to(x.dtype)


def timestep_embedding(timesteps: Tensor, width: int = 256) -> Tensor:
    """[cos, sin] of timesteps (M,) at `width`/2 frequencies 10000^(-k/(width/2)), fp32 (M, width).

    Reference: diffusers `get_timestep_embedding(flip_sin_to_cos=True, downscale_freq_shift=0)`.
    """
    half = width // 2
    exponent = -math.log(10000.0) * torch.arange(half, dtype=torch.float32, device=timesteps.device) / half
    angles = timesteps.float()[:, None] * torch.exp(exponent)[None]
    return torch.cat([torch.cos(angles), torch.sin(angles)], dim=-1)


class TimestepEmbedder(nn.Module):
    """Sinusoid (fp32) → Linear → SiLU → Linear, in the weights' dtype."""

    def __init__(self, width: int, sinusoid: int = 256) -> None:
        super().__init__()
        self.linear_1 = Linear(sinusoid, width)
        self.linear_2 = Linear(width, width)

    def forward(self, timesteps: Tensor) -> Tensor:
        x = timestep_embedding(timesteps).to(self.linear_1.weight.dtype)
        return self.linear_2(functional.silu(self.linear_1(x)))


class CombinedTimestepEmbedder(nn.Module):
    """Contains the embedder under the checkpoint's name `timestep_embedder`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.timestep_embedder = TimestepEmbedder(width)

    def forward(self, timesteps: Tensor) -> Tensor:
        return self.timestep_embedder(timesteps)
