"""torch's CPU random numbers without torch, so that a seed gives the same video as in the reference.

MT19937 seeded with the low 32 bits; 24-bit uniforms; Box–Muller over blocks of 16 for 16 numbers or more, and
in float64 one pair at a time for fewer (torch `normal_fill` and `at::normal_distribution<double>`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ltxrt.engines.errors import InputError, setting

Noise = Callable[[tuple[int, ...]], NDArray[np.float32]]  # shape → standard normal numbers


class Generator(Protocol):
    """A seeded source of standard normal numbers."""

    def randn(self, shape: tuple[int, ...], dtype: str = "f32") -> NDArray[np.float32]:
        """As `torch.randn(shape, generator=…)`."""

    def randn_strided(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """As `torch.randn_like` of a tensor with its axes permuted in memory; `shape` is memory's."""


BLOCK = 16  # eight radii, then eight angles


class TorchCpuGenerator:
    """The numbers of `torch.Generator("cpu").manual_seed(seed)`, drawn in the same order.

    Uniforms equal torch's bit for bit, as do strided normals and those of fewer than 16 at a time; other
    normals agree to 1e-6 with torch's vectorised kernels. Seeds with equal low 32 bits give the same numbers,
    as in torch.
    """

    def __init__(self, seed: int) -> None:
        self._bits = np.random.RandomState(check_seed(seed) & 0xFFFFFFFF)
        self._spare: float | None = None  # the second number of the last float64 pair, not used yet

    def rand(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Uniform numbers in [0, 1), as `torch.rand(shape, generator=…)`."""
        return self._uniform(math.prod(shape)).reshape(shape)

    def randn(self, shape: tuple[int, ...], dtype: str = "f32") -> NDArray[np.float32]:
        """Standard normal numbers, as `torch.randn(shape, generator=…)`.

        "bf16" gives those of `dtype=torch.bfloat16`, as float32: each is rounded at the end, and an
        incomplete last block is drawn again at once, whereas fp32 first draws a uniform for each of its
        numbers.
        """
        check_dtype(dtype)
        size = math.prod(shape)
        values = self._blocks(size, dtype) if size >= BLOCK else self._pairs(size)
        return (bfloat16(values) if dtype == "bf16" else values).reshape(shape)

    def randn_strided(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """As `torch.randn_like` of a tensor with its axes permuted in memory; `shape` is memory's.

        torch fills only contiguous tensors in blocks. All others get float64 pairs, one number after the
        other in the order of memory (`normal_kernel`).
        """
        return self._pairs(math.prod(shape)).reshape(shape)

    def _blocks(self, size: int, dtype: str) -> NDArray[np.float32]:
        whole = size - size % BLOCK
        uniform = self._uniform(whole if dtype == "bf16" else size)
        normal = np.empty(size, np.float32)
        normal[:whole] = _box_muller(uniform[:whole])
        if whole < size:  # torch draws 16 more and overwrites the last 16 values
            normal[-BLOCK:] = _box_muller(self._uniform(BLOCK))
        return normal

    def _pairs(self, size: int) -> NDArray[np.float32]:
        left = [] if self._spare is None or size == 0 else [self._spare]
        angle, chance = self._uniform53((size - len(left) + 1) // 2 * 2).reshape(-1, 2).T
        radius = np.sqrt(-2.0 * np.log1p(-chance))
        pairs = np.stack(
            [radius * np.cos(2.0 * math.pi * angle), radius * np.sin(2.0 * math.pi * angle)], axis=1
        )
        values = np.concatenate([left, pairs.reshape(-1)])
        if size:
            self._spare = float(values[-1]) if values.size > size else None
        return values[:size].astype(np.float32)

    def _uniform(self, size: int) -> NDArray[np.float32]:
        words = self._words(size)
        return (words & np.uint32(0xFFFFFF)).astype(np.float32) * np.float32(2**-24)

    def _uniform53(self, size: int) -> NDArray[np.float64]:
        words = self._words(2 * size).astype(np.uint64).reshape(-1, 2)
        bits = (words[:, 0] << np.uint64(32) | words[:, 1]) & np.uint64(2**53 - 1)
        return bits.astype(np.float64) * 2.0**-53

    def _words(self, size: int) -> NDArray[np.uint32]:
        return self._bits.randint(0, 2**32, size, dtype=np.uint32)


def check_seed(seed: int) -> int:
    """The seed; InputError if torch would refuse it."""
    if not 0 <= seed < 2**64:
        raise InputError(f"{setting('seed')} {seed}: must be between 0 and 2**64 - 1")
    return seed


def check_dtype(dtype: str) -> None:
    """Raise InputError unless torch's numbers of this type are reproduced here."""
    if dtype not in ("f32", "bf16"):
        raise InputError(f"noise of type {dtype!r}: must be f32 or bf16")


def bfloat16(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each number rounded to the nearest bfloat16, ties to even; float32 again."""
    bits = values.view(np.uint32)
    rounded = bits + (np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))
    return (rounded & np.uint32(0xFFFF0000)).view(np.float32)


def _box_muller(uniform: NDArray[np.float32]) -> NDArray[np.float32]:
    """Normals from a multiple of 16 uniforms, block by block of 16."""
    halves = uniform.reshape(-1, 2, BLOCK // 2)
    radius = np.sqrt(np.float32(-2) * np.log(np.float32(1) - halves[:, 0]))
    angle = np.float32(2 * math.pi) * halves[:, 1]
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).reshape(-1)
