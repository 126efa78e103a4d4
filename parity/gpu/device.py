"""engines/tensorrt/cuda.py on a GPU: copies of every type, CUDA graphs, and error messages."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np

from ltxrt.engines.errors import EngineError, MissingPackageError
from ltxrt.engines.tensorrt.cuda import CudaDevice, DeviceBuffer
from ltxrt.parity.gpu.host_cuda import HostCuda, HostDevice
from ltxrt.parity.gpu.parts import Place, Row, UnavailableError, attempt

TYPES = ("float32", "float16", "uint16", "int64", "bool", "uint8")
PIXELS = (1, 3, 121, 512, 768)  # what a decoded video downloads: 571 MB
IMPOSSIBLE = 1 << 50


def run(place: Place) -> Iterator[Row]:
    device = _device(place)
    for name in TYPES:
        yield attempt(f"round trip of {name}", partial(_round_trip, device, name))
    yield attempt("download", lambda: _download(device, (1, 3, 9, 64, 96) if place.cpu else PIXELS))
    yield attempt("graph of a copy", lambda: _graph(device))
    yield attempt("aborted capture", lambda: _aborted(device))
    yield attempt("impossible allocation", lambda: _impossible(device))


def _device(place: Place) -> CudaDevice:
    if place.cpu:
        return HostDevice(HostCuda())
    try:
        return CudaDevice()
    except MissingPackageError as error:
        raise UnavailableError(
            "needs cuda-bindings and an NVIDIA GPU; cuda-bindings is not installed"
        ) from error
    except EngineError as error:
        raise UnavailableError(f"needs an NVIDIA GPU: {error}") from error


def _round_trip(device: CudaDevice, name: str) -> Row:
    rng = np.random.default_rng(0)
    array = rng.integers(0, 2 if name == "bool" else 200, (3, 1000)).astype(name)
    memory, back = DeviceBuffer(device), np.zeros_like(array)
    address = memory.at_least(array.nbytes)
    device.upload(address, array)
    device.download(back, address)
    device.wait()
    memory.release()
    return Row(f"round trip of {name}", bool((array == back).all()), {"bytes": array.nbytes})


def _download(device: CudaDevice, shape: tuple[int, ...]) -> Row:
    array = np.random.default_rng(0).standard_normal(shape, np.float32)
    memory, back = DeviceBuffer(device), np.empty_like(array)
    address = memory.at_least(array.nbytes)
    device.upload(address, array)
    device.wait()
    start = time.monotonic()
    device.download(back, address)
    device.wait()
    seconds = time.monotonic() - start
    memory.release()
    return Row("download", bool((array == back).all()), {"bytes": array.nbytes, "ms": 1000 * seconds})


def _graph(device: CudaDevice) -> Row:
    """A captured download must run at launch, not at capture, and see what is there at launch."""
    memory, first, second = DeviceBuffer(device), np.full(1024, 1, np.float32), np.full(1024, 2, np.float32)
    back, address = np.zeros(1024, np.float32), memory.at_least(4096)
    device.upload(address, first)
    device.wait()
    device.begin_graph()
    device.download(back, address)
    graph: Any = device.end_graph()
    early = bool((back == 0).all())
    device.upload(address, second)
    device.launch(graph)
    device.wait()
    late = bool((back == 2).all())
    device.free_graph(graph)
    memory.release()
    return Row("graph of a copy", early and late, {"nothing ran while capturing": early, "launched": late})


def _aborted(device: CudaDevice) -> Row:
    """A failure inside a capture: once it is ended, the stream must work again."""
    memory, back = DeviceBuffer(device), np.zeros(16, np.float32)
    address = memory.at_least(64)
    device.begin_graph()
    refused = False
    try:
        device.wait()  # not allowed while capturing
    except EngineError:
        refused = True
    with suppress(EngineError):  # the capture is invalid, and ends all the same
        device.free_graph(device.end_graph())
    device.upload(address, np.ones(16, np.float32))
    device.download(back, address)
    device.wait()
    works = bool((back == 1).all())
    memory.release()
    return Row("aborted capture", refused and works, {"refused inside": refused, "works after": works})


def _impossible(device: CudaDevice) -> Row:
    try:
        device.allocate(IMPOSSIBLE)
    except EngineError as error:
        message = str(error)
        return Row("impossible allocation", "GiB" in message, {"message": message})
    return Row("impossible allocation", False, problem=f"{IMPOSSIBLE} bytes were allocated")
