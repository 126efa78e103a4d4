"""Caches the kernels that TensorRT for RTX compiled for this GPU in a file beside the engine.

`<engine>.runtime` has the SHA-256 of the rest, then the package's serialized cache, which the package checks
against GPU, driver and version. Like the engine, it is executable content.
"""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path
from typing import Any

from ltxrt.engines.errors import InputError
from ltxrt.engines.storage.files import atomic_write, read_small

SUFFIX = ".runtime"
LIMIT = 256 << 20  # bytes; a larger one is neither read nor written
_HASH = hashlib.sha256().digest_size


class JitCache:
    """The file at `path`, and the package's cache object after `give`."""

    def __init__(self, path: Path) -> None:
        self._path, self._cache = path, None
        self._known = b""

    def give(self, config: Any) -> None:
        """Give the context of `config` the kernels that earlier processes compiled."""
        self._cache = config.create_runtime_cache()
        if self._cache is None:
            return
        data = read(self._path)
        if data and self._cache.deserialize(data):  # refused: it is of another GPU, driver or version
            self._known = data
        config.set_runtime_cache(self._cache)

    def save(self) -> None:
        """Write the cache if it has grown. A failure is no error: only the next start is slower."""
        if self._cache is None:
            return
        memory = self._cache.serialize()
        data = b"" if memory is None else bytes(memoryview(memory))
        if data and data != self._known and len(data) <= LIMIT:
            with contextlib.suppress(OSError, InputError):
                write(self._path, data)


def read(path: Path) -> bytes:
    """The cache's bytes; empty if the file is absent, damaged or too large."""
    try:
        content = read_small(path, LIMIT + _HASH + 1)
    except OSError:
        return b""
    digest, data = content[:_HASH], content[_HASH:]
    return data if len(data) <= LIMIT and hashlib.sha256(data).digest() == digest else b""


def write(path: Path, data: bytes) -> None:
    with atomic_write(path) as temporary:
        temporary.write_bytes(hashlib.sha256(data).digest() + data)
