"""Shapes of a video in pixels and in latents, tokens, and the latents' statistics.

Every conversion takes its compressions from the autoencoder's facts; no factor is written here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ltxrt.engines.errors import InputError
from ltxrt.engines.parsing.sizes import check_size


class Compression(Protocol):
    """How many pixel frames, and pixels a side, one latent cell stands for."""

    @property
    def temporal_compression(self) -> int: ...

    @property
    def spatial_compression(self) -> int: ...


@dataclass(frozen=True)
class LatentShape:
    """Size of a video in latent cells."""

    frames: int
    height: int
    width: int

    @property
    def tokens(self) -> int:
        """N: one token per cell, frames slowest and width fastest."""
        return self.frames * self.height * self.width

    def grid(self, channels: int) -> tuple[int, int, int, int, int]:
        """The shape (1, C, f, h, w) of this video's latents."""
        return 1, channels, self.frames, self.height, self.width

    def video(self, vae: Compression) -> VideoShape:
        """The pixels this decodes to; the first latent frame is a single pixel frame."""
        time, space = vae.temporal_compression, vae.spatial_compression
        return VideoShape((self.frames - 1) * time + 1, self.height * space, self.width * space)


class Margins(NamedTuple):
    """Pixels around a picture."""

    top: int
    bottom: int
    left: int
    right: int


NO_MARGINS = Margins(0, 0, 0, 0)


@dataclass(frozen=True)
class VideoShape:
    """Size of a video in pixels."""

    num_frames: int
    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.num_frames} frame{'s' * (self.num_frames != 1)} of {self.width}×{self.height}"

    def latent(self, vae: Compression) -> LatentShape:
        """The latent cells that hold this video; raises InputError where it is not a whole number of them."""
        self.check(vae)
        time, space = vae.temporal_compression, vae.spatial_compression
        return LatentShape((self.num_frames - 1) // time + 1, self.height // space, self.width // space)

    def padded(self, vae: Compression) -> VideoShape:
        """The next size above, or this one, that is a whole number of latent cells."""
        time, space = vae.temporal_compression, vae.spatial_compression
        frames = -(-(self.num_frames - 1) // time) * time + 1
        return VideoShape(frames, -(-self.height // space) * space, -(-self.width // space) * space)

    def margins(self, padded: VideoShape) -> Margins:
        """What `padded` has around this size: the odd pixel is below and to the right, as officially."""
        high, wide = padded.height - self.height, padded.width - self.width
        return Margins(high // 2, high - high // 2, wide // 2, wide - wide // 2)

    def check(self, vae: Compression) -> None:
        """Refuse a size that the autoencoder cannot hold, naming the nearest that it can."""
        check_size("num_frames", self.num_frames, vae.temporal_compression, 1)
        check_size("height", self.height, vae.spatial_compression, 0)
        check_size("width", self.width, vae.spatial_compression, 0)


def pack(latents: NDArray[np.float32]) -> NDArray[np.float32]:
    """Latents (B, C, f, h, w) to tokens (B, N, C), order f, h, w."""
    batch, channels = latents.shape[:2]
    return np.ascontiguousarray(latents.reshape(batch, channels, -1).swapaxes(1, 2))


def unpack(tokens: NDArray[np.float32], shape: LatentShape) -> NDArray[np.float32]:
    """Tokens (B, N, C) to latents (B, C, f, h, w)."""
    batch, count, channels = tokens.shape
    if count != shape.tokens:
        raise InputError(f"{count} tokens do not fill {shape}, which holds {shape.tokens}")
    grid = (batch, channels, shape.frames, shape.height, shape.width)
    return np.ascontiguousarray(tokens.swapaxes(1, 2)).reshape(grid)


def normalise(
    latents: NDArray[np.float32], mean: Sequence[float], std: Sequence[float]
) -> NDArray[np.float32]:
    """The autoencoder's raw latents (B, C, f, h, w) to the transformer's, per channel."""
    return (latents - _per_channel(mean)) / _per_channel(std)


def unnormalise(
    latents: NDArray[np.float32], mean: Sequence[float], std: Sequence[float]
) -> NDArray[np.float32]:
    """Inverse of `normalise`."""
    return latents * _per_channel(std) + _per_channel(mean)


def _per_channel(values: Sequence[float]) -> NDArray[np.float32]:
    return np.asarray(values, np.float32)[:, None, None, None]
