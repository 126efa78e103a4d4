"""Frames as NumPy arrays, for scripts: `.npy`, or `.npz`, which also has the frame rate and the metadata.

`numpy.load(file)["frames"]` is (F, H, W, 3), uint8 or uint16; `metadata` is a JSON text. Nothing is pickled.
"""

from __future__ import annotations

import io
import json
import shutil
import tempfile
import zipfile
from typing import IO, cast

import numpy as np
from numpy.lib import format as npy

from ltxrt.engines.errors import LtxrtError
from ltxrt.runtime.media.formats.sink import Frame, Target, deep

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the time of every member: equal frames make equal files
_PIECE = 1 << 20


class Array:
    """A `.npy` file, whose header is written again when the number of frames is known."""

    def __init__(self, target: Target, file: IO[bytes] | None = None) -> None:
        self.size, self.dtype = target.size, np.dtype("<u2" if target.encoding.bit_depth > 8 else "|u1")
        self.count = 0
        self.file = target.path.open("wb+") if file is None else file
        self._header()
        self.start = self.file.tell()

    def _header(self) -> None:
        shape = (self.count, *self.size, 3)
        head = {"descr": npy.dtype_to_descr(self.dtype), "fortran_order": False, "shape": shape}
        npy.write_array_header_1_0(self.file, head)

    def write(self, frame: Frame) -> None:
        if self.dtype.itemsize == 2:
            frame = deep(frame)
        self.file.write(np.ascontiguousarray(frame, self.dtype).data)
        self.count += 1

    def finish(self) -> None:
        self.file.seek(0)
        self._header()  # NumPy leaves room for the first axis to grow
        if self.file.tell() != self.start:
            raise LtxrtError(
                f"this NumPy {np.__version__} wrote headers of two sizes; write a folder of PNG frames"
            )
        self.file.flush()

    def close(self) -> None:
        self.file.close()


class Archive:
    """A `.npz` file of frames, frame_rate and metadata: an uncompressed zip archive."""

    def __init__(self, target: Target) -> None:
        self.target = target
        # A member's header comes before its values, and says how many frames there are: they wait in a file
        # without a name, which goes with the process however that ends.
        waiting = tempfile.TemporaryFile(dir=target.path.parent)  # noqa: SIM115  # closed by `close`
        self.array = Array(target, cast(IO[bytes], waiting))

    def write(self, frame: Frame) -> None:
        self.array.write(frame)

    def finish(self) -> None:
        self.array.finish()
        texts = {
            "frame_rate": np.array(str(self.target.rate)),
            "metadata": np.array(json.dumps(dict(self.target.metadata), ensure_ascii=True)),
        }
        with zipfile.ZipFile(self.target.path, "w") as archive:
            with archive.open(_member("frames"), "w", force_zip64=True) as member:
                self.array.file.seek(0)
                shutil.copyfileobj(self.array.file, member, _PIECE)
            for name, value in texts.items():
                memory = io.BytesIO()
                npy.write_array(memory, value, allow_pickle=False)
                archive.writestr(_member(name), memory.getvalue())

    def close(self) -> None:
        self.array.close()


def _member(name: str) -> zipfile.ZipInfo:
    return zipfile.ZipInfo(f"{name}.npy", _EPOCH)
