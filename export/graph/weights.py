"""Streams a checkpoint's tensors into a traced graph's initialisers, one at a time.

Each is read from the checkpoint, cast to the initialiser's type, transposed for a MatMul, appended to the
external-data file and hashed at the same time: peak memory is that of the largest tensor and does not depend
on the model's size.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from io import BufferedWriter
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import onnx_ir as ir
import torch

from ltxrt.engines.errors import CheckpointError
from ltxrt.export.checkpoint.safetensors import StoredTensor
from ltxrt.export.graph.fp8 import quantise
from ltxrt.export.graph.trace import Traced

TORCH_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
}
IR_DTYPES = {
    torch.float32: ir.DataType.FLOAT,
    torch.float16: ir.DataType.FLOAT16,
    torch.bfloat16: ir.DataType.BFLOAT16,
    torch.int64: ir.DataType.INT64,
    torch.float8_e4m3fn: ir.DataType.FLOAT8E4M3FN,
}
PAGE = 4096  # backends map external data in whole pages
SMALL_ALIGNMENT = 64
# Bytes that are read or written at a time: what a signal waits for, and how often progress is reported.
PIECE = 16 << 20
UNFLUSHED = 128 << 20  # bytes that may wait for the disk: no signal ends what waits for a large flush

Progress = Callable[[int, int], None]  # bytes written so far, bytes in all


@dataclass(frozen=True)
class Written:
    """Size and hash of the external-data file that was written."""

    bytes: int
    sha256: str


def read(stored: StoredTensor) -> torch.Tensor:
    """The tensor as stored. Read instead of mapped: a mapping of the checkpoint counts as resident memory."""
    if stored.dtype not in TORCH_DTYPES:
        known = ", ".join(TORCH_DTYPES)
        raise CheckpointError(f"{stored.path}: {stored.name} is {stored.dtype}; weights may be {known}")
    data = np.empty(stored.nbytes, np.uint8)
    pieces, done = data.data, 0
    with stored.path.open("rb", buffering=0) as file:
        file.seek(stored.offset)
        while done < stored.nbytes and (count := file.readinto(pieces[done : done + PIECE])):
            done += count
    if done != stored.nbytes:
        raise CheckpointError(
            f"{stored.path} was truncated while it was read, at {stored.name}; fetch it again"
        )
    return torch.from_numpy(data).view(TORCH_DTYPES[stored.dtype]).view(stored.shape)


def prepare(tensor: torch.Tensor, transposed: bool, dtype: torch.dtype) -> torch.Tensor:
    """Cast, then transpose into the layout that MatMul reads."""
    tensor = tensor.to(dtype)
    return (tensor.t() if transposed else tensor).contiguous()


def stream(
    traced: Traced,
    weights: Mapping[str, StoredTensor],
    constants: Mapping[str, torch.Tensor],
    data_path: Path,
    location: str,
    scales: Mapping[str, float] | None = None,
    progress: Progress | None = None,
) -> Written:
    """Write every weight initialiser to `data_path` and make the graph refer to it as `location`.

    `constants` are buffers that checkpoints do not contain; `scales` are factors for single weights.
    Initialisers with a value (folded constants) stay in the graph.
    """
    filled = {value.name for value in traced.quantised.values()}
    initialisers = traced.model.graph.initializers.values()
    values = [v for v in initialisers if v.const_value is None and v.name not in filled]
    total = sum(_nbytes(v) for v in values)
    for scale in traced.quantised.values():
        # Allocated before the weights are streamed: small allocations that stay, between large ones that
        # are freed, keep the heap from being reused, and memory would grow with the model.
        scale.const_value = ir.tensor(
            torch.empty(_channels(scale), dtype=_torch_dtype(scale)), name=scale.name
        )
    digest, offset, done = hashlib.sha256(), 0, 0
    with data_path.open("wb") as file, _Flushing(file) as flushing:
        for value in values:
            tensor = _value(value, traced, weights, constants, (scales or {}).get(value.name or "", 1.0))
            data = tensor.flatten().view(torch.uint8).numpy()
            padding = b"\0" * (-offset % (PAGE if data.nbytes >= PAGE else SMALL_ALIGNMENT))
            file.write(padding)
            digest.update(padding)
            offset += len(padding)
            value.const_value = _external(value, location, offset, data.nbytes, data_path.parent)
            offset += data.nbytes
            for start in range(0, data.nbytes, PIECE):
                piece = data[start : start + PIECE].data
                file.write(piece)
                digest.update(piece)
                flushing.wrote(piece.nbytes)
                done += piece.nbytes
                if progress:
                    progress(done, total)
    return Written(offset, digest.hexdigest())


class _Flushing:
    """Brings a file's content to the disk, in another thread, while more is written.

    Otherwise all of it would be flushed at the end, which takes as long again and which no signal ends.
    """

    def __init__(self, file: BufferedWriter) -> None:
        self._file, self._thread = file, ThreadPoolExecutor(1, "flush")
        self._flush: Future[None] | None = None
        self._waiting = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._thread.shutdown()
        if kind is None and self._flush is not None:
            self._flush.result()  # its error, which the system tells once

    def wrote(self, count: int) -> None:
        """So many bytes more were written; waits for the disk where too many are not there."""
        self._waiting += count
        if self._waiting >= UNFLUSHED:
            if self._flush is not None:
                self._flush.result()
            self._file.flush()
            self._flush = self._thread.submit(os.fsync, self._file.fileno())
            self._waiting = 0


def _value(
    value: ir.Value,
    traced: Traced,
    weights: Mapping[str, StoredTensor],
    constants: Mapping[str, torch.Tensor],
    scale: float,
) -> torch.Tensor:
    name = value.name or ""
    dtype = _torch_dtype(value)
    if name in constants:
        return prepare(constants[name], False, dtype)
    stored = weights[name]
    tensor = read(stored)
    if scale != 1.0:
        tensor = tensor.float() * scale
    if name in traced.quantised:
        return _quantised(prepare(tensor, name in traced.transposed, torch.float32), traced.quantised[name])
    _check_range(stored, tensor, dtype)
    return prepare(tensor, name in traced.transposed, dtype)


def _quantised(tensor: torch.Tensor, scale: ir.Value) -> torch.Tensor:
    """The weight (in, out) as FP8; puts the scales of its outputs into the graph."""
    weight, steps = quantise(tensor, _torch_dtype(scale))
    place = cast(torch.Tensor, cast(Any, scale.const_value).raw)  # the initialiser's own array
    place.copy_(steps)
    return weight


def _torch_dtype(value: ir.Value) -> torch.dtype:
    return next(t for t, d in IR_DTYPES.items() if d == value.dtype)


def _channels(scale: ir.Value) -> int:
    size = scale.shape[0] if scale.shape is not None else None
    if not isinstance(size, int):
        raise CheckpointError(
            f"{scale.name}: a scale needs one number per output, its shape is {scale.shape}"
        )
    return size


def _check_range(stored: StoredTensor, tensor: torch.Tensor, dtype: torch.dtype) -> None:
    """Raise CheckpointError for numbers that would be infinite after the cast: every frame would be NaN."""
    limit = torch.finfo(dtype).max
    if torch.finfo(tensor.dtype).max <= limit or tensor.numel() == 0:
        return
    low, high = (float(v) for v in torch.aminmax(tensor))
    largest = max(-low, high)
    if limit < largest < math.inf:  # infinities and NaN of the checkpoint itself are not the cast's
        raise CheckpointError(
            f"{stored.path}: {stored.name} holds {largest:.6g}, more than the largest number of "
            f"{str(dtype).removeprefix('torch.')}, {limit:.6g}; export this component in bf16 or fp32"
        )


def _nbytes(value: ir.Value) -> int:
    if value.shape is None or value.dtype is None:
        raise TypeError(f"initialiser {value.name} has no type")
    return math.prod(value.shape.numpy()) * math.ceil(value.dtype.itemsize)


def _external(value: ir.Value, location: str, offset: int, length: int, folder: Path) -> ir.ExternalTensor:
    if value.shape is None or value.dtype is None:
        raise TypeError(f"initialiser {value.name} has no type")
    return ir.ExternalTensor(
        location, offset, length, value.dtype, shape=value.shape, name=value.name or "", base_dir=folder
    )


def weights_map(traced: Traced, names: Iterable[str], scales: Mapping[str, float] | None = None) -> str:
    """JSON: checkpoint name → initialiser, whether it is stored transposed, its factor; for LoRA, refit."""
    rows = {
        n: {"initializer": n, "transposed": n in traced.transposed, "scale": (scales or {}).get(n, 1.0)}
        for n in sorted(names)
    }
    return json.dumps(rows, indent=1) + "\n"
