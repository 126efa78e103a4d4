"""torch's CUDA random numbers without torch: Philox4x32-10, in the order in which torch's kernel writes them.

A thread draws four numbers at a time and writes them one grid apart, so the numbers of a large tensor depend
on how many threads the GPU runs at once; those of tensors up to that size (40 960 on a T4, 270 336 on an
H100) do not. References: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011); torch
`ATen/native/cuda/DistributionTemplates.h`; cuRAND's `curand_philox4x32_x.h` and `curand_normal.h`.

Not verified beside a GPU: the tests compare it with the paper's known answers and published values of torch.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ltxrt.engines.errors import InputError, setting
from ltxrt.engines.parsing.text import quoted
from ltxrt.runtime.noise.cpu import bfloat16, check_dtype, check_seed

Words = NDArray[np.uint32]

BLOCK = 256  # threads
UNROLL = 4  # numbers that a thread draws at a time
ROUNDS = 10
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
INVERSE = np.float32(2.3283064e-10)  # 2^-32
INVERSE_2PI = np.float32(INVERSE * np.float32(6.2831855))

# Multiprocessors, and threads that each runs at once.
GPUS: dict[str, tuple[int, int]] = {
    "A100": (108, 2048),
    "H100": (132, 2048),
    "H100 PCIe": (114, 2048),
    "H200": (132, 2048),
    "L4": (58, 1536),
    "L40S": (142, 1536),
    "A10G": (80, 1536),
    "T4": (40, 1024),
    "RTX 3090": (82, 1536),
    "RTX 4080": (76, 1536),
    "RTX 4090": (128, 1536),
    "RTX 5080": (84, 1536),
    "RTX 5090": (170, 1536),
}


class TorchCudaGenerator:
    """The numbers of `torch.Generator("cuda").manual_seed(seed)` on a GPU of `GPUS`, in the same order.

    Random bits equal torch's; normals differ by the GPU's logarithm and sine, a few 1e-7.
    """

    def __init__(self, seed: int, gpu: str) -> None:
        if gpu not in GPUS:
            raise InputError(f"{setting('gpu')} {quoted(gpu)}: must be one of {', '.join(GPUS)}")
        multiprocessors, threads = GPUS[gpu]
        self._seed = check_seed(seed)
        self._most_blocks = multiprocessors * (threads // BLOCK)
        self._offset = 0  # draws of four numbers that every thread has made

    def randn(self, shape: tuple[int, ...], dtype: str = "f32") -> NDArray[np.float32]:
        """Standard normal numbers, as `torch.randn(shape, device="cuda")`; "bf16" rounds each to bfloat16."""
        check_dtype(dtype)
        size = math.prod(shape)
        threads = min(self._most_blocks, -(-size // BLOCK)) * BLOCK
        values = np.empty(size, np.float32)
        rounds = -(-size // (threads * UNROLL)) if size else 0
        for turn in range(rounds):
            self._fill(values[turn * threads * UNROLL :], threads, self._offset + turn)
        self._offset += rounds
        return (bfloat16(values) if dtype == "bf16" else values).reshape(shape)

    def randn_strided(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """As `torch.randn_like` of a tensor with its axes permuted in memory; `shape` is memory's.

        The kernel fills a dense tensor in the order of memory, so these are `randn`'s numbers (as read in
        torch's source).
        """
        return self.randn(shape)

    def _fill(self, values: NDArray[np.float32], threads: int, offset: int) -> None:
        """One draw of every thread: the i-th of its four numbers is at i · threads + thread."""
        counter = np.zeros((4, min(threads, values.size)), np.uint32)
        counter[0], counter[1] = offset & 0xFFFFFFFF, offset >> 32
        counter[2] = np.arange(counter.shape[1], dtype=np.uint32)
        words = philox(counter, (self._seed & 0xFFFFFFFF, self._seed >> 32))
        for pair in range(UNROLL // 2):
            for half, normal in enumerate(_box_muller(words[2 * pair], words[2 * pair + 1])):
                part = values[(2 * pair + half) * threads :][:threads]
                part[:] = normal[: part.size]


def philox(counter: Words, key: tuple[int, int]) -> Words:
    """Philox4x32-10 of counters (4, n) with one key: (4, n) random words."""
    a, b, c, d = (row.astype(np.uint64) for row in counter)
    keys = [np.uint64(k) for k in key]
    low = np.uint64(0xFFFFFFFF)
    shift = np.uint64(32)
    for _ in range(ROUNDS):
        first, second = (np.uint64(m) * row for m, row in zip(MULTIPLIERS, (a, c)))
        a, b = (second >> shift) ^ b ^ keys[0], second & low
        c, d = (first >> shift) ^ d ^ keys[1], first & low
        keys = [(k + np.uint64(step)) & low for k, step in zip(keys, KEY_STEPS)]
    return np.stack([a, b, c, d]).astype(np.uint32)


def _box_muller(first: Words, second: Words) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Two normals from two words each, the sine's first, as in cuRAND."""
    chance = first.astype(np.float32) * INVERSE + INVERSE / np.float32(2)
    angle = second.astype(np.float32) * INVERSE_2PI + INVERSE_2PI / np.float32(2)
    radius = np.sqrt(np.float32(-2) * np.log(chance))
    return radius * np.sin(angle), radius * np.cos(angle)
