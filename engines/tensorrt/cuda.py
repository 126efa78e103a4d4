"""GPU memory, copies, streams and graphs through NVIDIA's own bindings; no tensors, no other package.

Numbers in this module are addresses and bytes. Not verified on a GPU: the tests check the calls against the
installed bindings' names, and the sessions that use them against a simulated device.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from ltxrt.engines.errors import EngineError, InputError, MissingPackageError, setting

SMALLER = "use fewer frames, a smaller size or a smaller precision"


class CudaDevice:
    """A GPU, by its number, with one stream that executes everything in order."""

    def __init__(self, extra: str = "tensorrt", index: int = 0) -> None:
        try:
            self._cuda: Any = importlib.import_module("cuda.bindings.runtime")
        except ImportError as error:
            raise MissingPackageError("cuda-bindings", extra) from error
        count = self._call("cudaGetDeviceCount", missing="no NVIDIA driver that this CUDA can use")
        if count < 1:
            raise EngineError(
                "no NVIDIA GPU is visible; run on a machine with one, or use "
                f"{setting('backend')} onnxruntime"
            )
        if not 0 <= index < count:
            raise InputError(f"{setting('device')} {index}: this machine has {count} GPUs, numbered from 0")
        self.index = index
        self.use()
        self.stream = self._call("cudaStreamCreate")

    def use(self) -> None:
        """Make it the calling thread's current GPU, which CUDA keeps per thread."""
        self._call("cudaSetDevice", self.index)

    def free_memory(self) -> int:
        """Bytes that can still be allocated."""
        return int(self._call("cudaMemGetInfo"))

    def allocate(self, size: int) -> int:
        """The address of `size` new bytes. Raises EngineError if they cannot be allocated."""
        missing = f"no {size / 2**30:.2f} GiB left in the GPU's memory; {SMALLER}"
        return int(self._call("cudaMalloc", size, missing=missing))

    def free(self, address: int) -> None:
        self._call("cudaFree", address)

    def upload(self, address: int, array: np.ndarray) -> None:
        """Copy a contiguous array to the GPU; `array` must live until `wait`."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", address, array.ctypes.data, array.nbytes, kind, self.stream)

    def download(self, array: np.ndarray, address: int) -> None:
        """Copy from the GPU into a contiguous array, which is complete after `wait`."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", array.ctypes.data, address, array.nbytes, kind, self.stream)

    def wait(self) -> None:
        """Wait until all enqueued work is done."""
        self._call("cudaStreamSynchronize", self.stream)

    def begin_graph(self) -> None:
        """Capture what is enqueued on the stream, instead of executing it."""
        mode = self._cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", self.stream, mode)

    def end_graph(self) -> Any:
        """The captured graph, ready to be launched."""
        graph = self._call("cudaStreamEndCapture", self.stream)
        try:
            return self._call("cudaGraphInstantiate", graph, 0)
        finally:
            self._call("cudaGraphDestroy", graph)

    def launch(self, graph: Any) -> None:
        self._call("cudaGraphLaunch", graph, self.stream)

    def free_graph(self, graph: Any) -> None:
        self._call("cudaGraphExecDestroy", graph)

    def _call(self, name: str, *arguments: Any, missing: str = "") -> Any:
        """A function's result without its status; EngineError unless the status is success."""
        status, *results = getattr(self._cuda, name)(*arguments)
        if int(status) != 0:
            raise EngineError(
                f"CUDA: {name} failed with {status.name}" + (f": there is {missing}" * bool(missing))
            )
        return results[0] if results else None


class DeviceBuffer:
    """A buffer on the device that grows and never shrinks; its address changes when it grows."""

    def __init__(self, device: Any) -> None:
        self._device, self.size, self.address = device, 0, 0

    def at_least(self, size: int) -> int:
        """The address of `size` bytes or more."""
        if size > self.size:
            self.release()
            self.address, self.size = self._device.allocate(size), size
        return self.address

    def release(self) -> None:
        if self.size:
            self._device.wait()
            self._device.free(self.address)
        self.size = self.address = 0
