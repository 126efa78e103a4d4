"""The CUDA functions that engines/tensorrt/cuda.py calls, in host memory, for runs without a GPU.

Copies are done at once, or kept while the stream captures; what CUDA refuses inside a capture is refused.
"""

from __future__ import annotations

import ctypes
from enum import IntEnum
from types import SimpleNamespace
from typing import Any

import numpy as np

from ltxrt.engines.tensorrt.cuda import CudaDevice

MOST = 1 << 40  # bytes; an allocation beyond it fails


class Status(IntEnum):
    cudaSuccess = 0
    cudaErrorMemoryAllocation = 2
    cudaErrorStreamCaptureUnsupported = 900
    cudaErrorStreamCaptureInvalidated = 901


class HostCuda:
    """Stands in for the module `cuda.bindings.runtime`."""

    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)

    def __init__(self) -> None:
        self._buffers: dict[int, np.ndarray] = {}
        self._captured: list[tuple[int, int, int]] | None = None
        self._valid = True

    def cudaGetDeviceCount(self) -> tuple[Status, int]:
        return Status.cudaSuccess, 1

    def cudaStreamCreate(self) -> tuple[Status, int]:
        return Status.cudaSuccess, 1

    def cudaMalloc(self, size: int) -> tuple[Status, int]:
        if size > MOST:
            return Status.cudaErrorMemoryAllocation, 0
        buffer = np.empty(max(size, 1), np.uint8)
        self._buffers[buffer.ctypes.data] = buffer
        return Status.cudaSuccess, buffer.ctypes.data

    def cudaFree(self, address: int) -> tuple[Status]:
        del self._buffers[address]
        return (Status.cudaSuccess,)

    def cudaMemcpyAsync(self, to: int, of: int, size: int, _kind: int, _stream: int) -> tuple[Status]:
        if self._captured is None:
            ctypes.memmove(to, of, size)
        else:
            self._captured.append((to, of, size))
        return (Status.cudaSuccess,)

    def cudaStreamSynchronize(self, _stream: int) -> tuple[Status]:
        if self._captured is None:
            return (Status.cudaSuccess,)
        self._valid = False
        return (Status.cudaErrorStreamCaptureUnsupported,)

    def cudaStreamBeginCapture(self, _stream: int, _mode: int) -> tuple[Status]:
        self._captured, self._valid = [], True
        return (Status.cudaSuccess,)

    def cudaStreamEndCapture(self, _stream: int) -> tuple[Status, Any]:
        captured, self._captured = self._captured, None
        if not self._valid:
            return Status.cudaErrorStreamCaptureInvalidated, None
        return Status.cudaSuccess, captured

    def cudaGraphInstantiate(self, graph: Any, _flags: int) -> tuple[Status, Any]:
        return Status.cudaSuccess, graph

    def cudaGraphDestroy(self, _graph: Any) -> tuple[Status]:
        return (Status.cudaSuccess,)

    def cudaGraphLaunch(self, graph: Any, _stream: int) -> tuple[Status]:
        for to, of, size in graph:
            ctypes.memmove(to, of, size)
        return (Status.cudaSuccess,)

    def cudaGraphExecDestroy(self, _graph: Any) -> tuple[Status]:
        return (Status.cudaSuccess,)


class HostDevice(CudaDevice):
    """The device's own code over `HostCuda`."""

    def __init__(self, cuda: HostCuda) -> None:
        self._cuda = cuda
        self.stream = self._call("cudaStreamCreate")
