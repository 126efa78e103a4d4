"""`ltxrt.runtime.noise.cuda` against torch on the GPU; with --cpu `ltxrt.runtime.noise.cpu` against torch."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from ltxrt.parity.gpu.parts import Place, Row, UnavailableError, attempt, torch_on
from ltxrt.runtime.noise.cpu import TorchCpuGenerator
from ltxrt.runtime.noise.cuda import GPUS, TorchCudaGenerator

SEED = 1234567
# Below, at and above what an H100 or H200 draws at once (270 336), and the latents of 121 frames of 512x768.
SIZES = (7, 1000, 65_536, 270_336, 270_337, 786_432, 1_100_001)
SMALL = (7, 16, 1000, 4103)
GRID = (128, 16, 16, 24)  # channels, latent frames, height, width
SMALL_GRID = (16, 2, 3, 4)
NORMAL = 4e-6  # logarithm, sine and cosine of the GPU against NumPy's
BF16 = 2.0**-7  # one step, where rounding falls on the other side
BF16_OTHER = 1e-2  # part of the numbers that may


def run(place: Place) -> Iterator[Row]:
    torch = torch_on(place)
    ours: Any = TorchCpuGenerator(SEED)
    if not place.cpu:
        properties = torch.cuda.get_device_properties(0)
        gpu = known(properties.name)
        found = (properties.multi_processor_count, properties.max_threads_per_multi_processor)
        yield Row(f"table of {gpu}", GPUS[gpu] == found, {"here": str(found), "table": str(GPUS[gpu])})
        ours = TorchCudaGenerator(SEED, gpu)
    theirs = torch.Generator(place.device).manual_seed(SEED)
    for dtype in ("f32", "bf16"):  # one generator through all draws: the state after each is compared too
        for size in SMALL if place.cpu else SIZES:
            yield attempt(f"{dtype} {size}", partial(_draw, torch, place, ours, theirs, dtype, size))
    yield attempt("token order", lambda: _token_order(torch, place))


def known(name: str) -> str:
    """The row of `GPUS` for the driver's name of a GPU: the longest whose words are all in it."""
    found = [gpu for gpu in GPUS if set(gpu.split()) <= set(name.replace("-", " ").split())]
    if not found:
        raise UnavailableError(f"needs a GPU of {', '.join(GPUS)}, and this one is {name}: add its row")
    return max(found, key=len)


def _draw(torch: Any, place: Place, ours: Any, theirs: Any, dtype: str, size: int) -> Row:
    kind = {"f32": torch.float32, "bf16": torch.bfloat16}[dtype]
    wanted = torch.randn(size, generator=theirs, device=place.device, dtype=kind).float().cpu().numpy()
    return compared(f"{dtype} {size}", ours.randn((size,), dtype), wanted, dtype)


def compared(name: str, ours: np.ndarray, theirs: np.ndarray, dtype: str) -> Row:
    """Whether two draws are the same numbers, but for the last digits of their normals."""
    difference = np.abs(ours - theirs) / np.maximum(1, np.abs(theirs))
    largest, other = float(difference.max()), float((ours != theirs).mean())
    passed = largest <= NORMAL if dtype == "f32" else largest <= BF16 and other <= BF16_OTHER
    return Row(name, bool(passed), {"largest": largest, "part that differs": other})


def _token_order(torch: Any, place: Place) -> Row:
    """The official pipeline's decode noise: `randn_like` of latents whose memory is in the tokens' order."""
    channels, *grid = SMALL_GRID if place.cpu else GRID
    tokens = torch.zeros((1, *grid, channels), device=place.device)
    ours = (
        TorchCpuGenerator(SEED)
        if place.cpu
        else TorchCudaGenerator(SEED, known(torch.cuda.get_device_name(0)))
    )
    torch.manual_seed(SEED)
    theirs = torch.randn_like(tokens.permute(0, 4, 1, 2, 3)).cpu().numpy()
    drawn = ours.randn_strided((1, *grid, channels))
    return compared("token order", np.moveaxis(drawn, -1, 1), theirs, "f32")
