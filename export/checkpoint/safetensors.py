"""Reads a safetensors file: names, shapes, dtypes and memory-mapped bytes. Trusts nothing it reads.

Format: 8 bytes little-endian header length, a JSON header, then the tensors' bytes without gaps
(https://github.com/huggingface/safetensors, README "Format").
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ltxrt.engines.errors import CheckpointError
from ltxrt.engines.parsing import json_input

# A 13B model's single file has some 1,700 tensors of about 150 bytes each in the header, and its config; some
# tools put a preview image of a megabyte or two beside. The format allows 100 MB, which took 2.5 GB and 25 s.
MAX_HEADER_BYTES = 8 << 20
MAX_TENSORS = 1 << 16
MAX_AXES = 8  # the autoencoder's convolutions have 5
MAX_NAME = 500  # characters
WEIGHTS = ("F64", "F32", "F16", "BF16", "F8_E4M3")  # what is exported; F8_E5M2 is for gradients
DTYPE_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}  # fmt: skip
_PICKLE_SUFFIXES = (".ckpt", ".pt", ".pth", ".bin")
_LFS_POINTER = b"version https://git-lfs"
_NUMPY = {"F64": np.float64, "F32": np.float32, "F16": np.float16}


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a file, still on disk; `offset` counts from the start of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    path: Path
    offset: int
    nbytes: int

    @property
    def size(self) -> int:
        """How many elements it has."""
        return math.prod(self.shape)

    def raw(self) -> np.ndarray:
        """Its bytes, uint8 (nbytes,), a read-only view into the file's one memory map."""
        mapped = _mapped(self.path, self.path.stat().st_mtime_ns)
        return mapped[self.offset : self.offset + self.nbytes]

    def float32(self) -> np.ndarray:
        """A float32 copy in `shape`; for F64, F32, F16 and BF16."""
        if self.dtype == "BF16":
            return (self.raw().view("<u2").astype(np.uint32) << 16).view(np.float32).reshape(self.shape)
        if self.dtype not in _NUMPY:
            raise CheckpointError(
                f"{self.path.name}: {self.name} is {self.dtype}; a float of 16 bits or more is needed"
            )
        dtype = np.dtype(_NUMPY[self.dtype]).newbyteorder("<")
        return self.raw().view(dtype).astype(np.float32).reshape(self.shape)


class SafetensorsFile:
    """A parsed and checked file: `tensors` by name and the header's `metadata`."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        size = _checked_size(self.path)
        header, start = _read_header(self.path, size)
        self.metadata = _metadata(self.path, header.pop("__metadata__", {}))
        spans = {name: _span(self.path, name, entry) for name, entry in header.items()}
        _check_layout(self.path, spans, start, size)
        self.tensors: dict[str, StoredTensor] = {
            name: StoredTensor(name, s.dtype, s.shape, self.path, start + s.begin, s.end - s.begin)
            for name, s in spans.items()
        }


@lru_cache(maxsize=32)
def _mapped(path: Path, modified: int) -> np.ndarray:
    """The file's one memory map; `modified` makes a rewritten file a new one."""
    return np.memmap(path, dtype=np.uint8, mode="r")


@dataclass(frozen=True)
class _Span:
    """A header entry: where a tensor lies, counted from the end of the header."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def _checked_size(path: Path) -> int:
    if not path.exists():
        raise CheckpointError(f"{path}: no such file")
    if path.is_dir():
        raise CheckpointError(f"{path}: is a folder; a .safetensors file is needed here")
    if path.suffix.lower() in _PICKLE_SUFFIXES:
        raise CheckpointError(
            f"{path}: is a pickle, which can run code when read; convert it to safetensors first"
        )
    if not path.is_file():
        raise CheckpointError(f"{path}: is not a regular file; a .safetensors file is needed here")
    size = path.stat().st_size
    if size == 0:
        raise CheckpointError(f"{path}: is empty (0 bytes); download it again")
    return size


def _read_header(path: Path, size: int) -> tuple[dict[str, Any], int]:
    with path.open("rb") as file:
        first = file.read(len(_LFS_POINTER))
        if first == _LFS_POINTER:
            raise CheckpointError(
                f"{path}: is a git-lfs pointer, not the weights; fetch them with: git lfs pull"
            )
        length = int.from_bytes(first[:8], "little")
        if size < 8 or length > MAX_HEADER_BYTES:
            raise CheckpointError(
                f"{path}: is not a safetensors file (its first 8 bytes are no header length up to "
                f"{MAX_HEADER_BYTES >> 20} MiB)"
            )
        if 8 + length > size:
            raise CheckpointError(
                f"{path}: is truncated: expected at least {8 + length} bytes, found {size}; download it again"
            )
        file.seek(8)
        text = file.read(length)
    return _parse_header(path, text), 8 + length


def _parse_header(path: Path, text: bytes) -> dict[str, Any]:
    try:
        header = json_input.parse(text)
    except ValueError as error:
        raise CheckpointError(
            f"{path}: its safetensors header is corrupt ({error}); download it again"
        ) from None
    if not isinstance(header, dict):
        raise CheckpointError(
            f"{path}: its safetensors header is corrupt (not a JSON object); download it again"
        )
    if len(header) > MAX_TENSORS:
        raise CheckpointError(f"{path}: its safetensors header is corrupt (more than {MAX_TENSORS} tensors)")
    return header


def _metadata(path: Path, data: Any) -> Mapping[str, str]:
    if not isinstance(data, dict) or not all(isinstance(v, str) for v in data.values()):
        raise CheckpointError(
            f"{path}: its safetensors header is corrupt (__metadata__ must map text to text)"
        )
    return data


def _span(path: Path, name: str, entry: Any) -> _Span:
    if len(name) > MAX_NAME or not name.isprintable():
        raise CheckpointError(f"{path}: its safetensors header is corrupt (name {name[:60]!r})")
    try:
        dtype, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    except (TypeError, KeyError, ValueError):
        raise CheckpointError(f"{path}: its safetensors header is corrupt (entry of {name!r})") from None
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        raise CheckpointError(f"{path}: {name} has dtype {dtype!r:.60}; known are {', '.join(DTYPE_BYTES)}")
    if len(shape) > MAX_AXES:
        raise CheckpointError(
            f"{path}: {name} has {len(shape)} axes, more than {MAX_AXES}; the header is corrupt"
        )
    if not all(type(n) is int and n >= 0 for n in (*shape, begin, end)):
        raise CheckpointError(f"{path}: its safetensors header is corrupt (numbers of {name!r})")
    if end - begin != math.prod(shape) * DTYPE_BYTES[dtype]:
        raise CheckpointError(
            f"{path}: {name} spans {end - begin} bytes, but {dtype} {shape} takes "
            f"{math.prod(shape) * DTYPE_BYTES[dtype]}; the header is corrupt"
        )
    return _Span(dtype, shape, begin, end)


def _check_layout(path: Path, spans: Mapping[str, _Span], start: int, size: int) -> None:
    """Tensors follow one another without gap or overlap and fill the file exactly."""
    position = 0
    for name, span in sorted(spans.items(), key=lambda item: (item[1].begin, item[1].end)):
        if span.begin != position:
            problem = "overlaps another tensor" if span.begin < position else "leaves a gap before it"
            raise CheckpointError(f"{path}: {name} {problem}; the header is corrupt")
        position = span.end
    expected = start + position
    if size < expected:
        raise CheckpointError(
            f"{path}: is truncated: expected {expected} bytes, found {size}; download it again"
        )
    if size > expected:
        raise CheckpointError(f"{path}: has {size - expected} bytes after its last tensor; download it again")
