"""The TensorRT backends: a bundle's engine loaded and called, its inputs kept on the GPU.

One code path for TensorRT and TensorRT for RTX. Buffers are allocated once and grow; inputs that were bound
are uploaded once; scratch memory is one allocation that every engine of a process shares, since engines run
one after another; a call whose shapes and buffers are those of the call before is replayed as a CUDA graph.

Not run on a GPU here: see the README's table.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ltxrt.engines import cache, trt
from ltxrt.engines.backend import Options
from ltxrt.engines.bundle import Bundle
from ltxrt.engines.contract import DTYPES, Contract
from ltxrt.engines.device import CudaDevice, Memory
from ltxrt.engines.errors import EngineError
from ltxrt.engines.profiles import Profile, from_json, pick

PRECISIONS = dict.fromkeys(trt.FLAVOURS, ("fp8", "bf16", "fp16", "fp8-fp16", "fp32"))


@dataclass(frozen=True)
class Uploaded:
    """An input that stays on the device."""

    memory: Memory
    shape: tuple[int, ...]


class Machine:
    """What the engines of a process share: the device, the scratch memory and the package's runtime."""

    _shared: dict[str, Machine] = {}  # noqa: RUF012  # one per backend and process

    def __init__(self, backend: str, device: Any, package: Any) -> None:
        self.backend, self.device, self.package = backend, device, package
        self.scratch = Memory(device)
        self.runtime = package.Runtime(package.Logger(package.Logger.ERROR))

    @classmethod
    def of(cls, backend: str) -> Machine:
        if backend not in cls._shared:
            package = trt.package(backend)
            cls._shared[backend] = cls(backend, CudaDevice(trt.flavour_of(backend).extra), package)
        return cls._shared[backend]


class TrtSession:
    """A deserialized engine; an `ltxrt.engines.backend.Session` whose handles are `Uploaded`."""

    def __init__(
        self, machine: Machine, engine: Any, contract: Contract, profiles: tuple[Profile, ...]
    ) -> None:
        self._machine, self._engine, self._contract, self._profiles = machine, engine, contract, profiles
        managed = machine.package.ExecutionContextAllocationStrategy.USER_MANAGED
        self._context: Any = engine.create_execution_context(managed)
        if self._context is None:
            raise EngineError(
                f"{contract.component}: {machine.backend} could not make a context of the engine"
            )
        self._buffers: dict[str, Memory] = {}
        self._uploaded: weakref.WeakSet[Uploaded] = weakref.WeakSet()
        self._profile = -1
        self._plan: object = None  # shapes and addresses of the last call
        self._graph: Any = None

    def upload(self, name: str, array: np.ndarray) -> Uploaded:
        memory = Memory(self._machine.device)
        memory.at_least(array.nbytes)
        self._machine.device.upload(memory.address, array)
        self._machine.device.wait()  # before the caller's array may change
        handle = Uploaded(memory, array.shape)
        weakref.finalize(handle, memory.release)  # a step that binds other inputs lets go of the old ones
        self._uploaded.add(handle)
        return handle

    def run(self, feeds: Mapping[str, Any]) -> np.ndarray:
        if self._context is None:
            raise EngineError(f"{self._contract.component}: the engine is closed")
        device = self._machine.device
        shapes = {name: tuple(value.shape) for name, value in feeds.items()}
        output = self._output(shapes)
        addresses = self._addresses(feeds, output)
        for name, value in feeds.items():
            if isinstance(value, np.ndarray):
                device.upload(addresses[name], value)
        self._execute(shapes, addresses)
        device.download(output, addresses[self._contract.outputs[0].name])
        device.wait()
        return output

    def close(self) -> None:
        self._drop_graph()
        for memory in (*self._buffers.values(), *(handle.memory for handle in self._uploaded)):
            memory.release()
        self._buffers = {}
        self._context = self._engine = None

    def _output(self, shapes: Mapping[str, tuple[int, ...]]) -> np.ndarray:
        """The array for the output, of the size that the contract gives."""
        sizes: dict[str, int] = {}
        for tensor in self._contract.inputs:
            empty = np.lib.stride_tricks.as_strided(np.zeros(1, DTYPES[tensor.dtype]), shapes[tensor.name],
                                                    (0,) * len(shapes[tensor.name]))  # fmt: skip
            self._contract.bind(tensor, empty, sizes)
        self._sizes = sizes
        (tensor,) = self._contract.outputs
        return np.empty(tensor.resolve(sizes), DTYPES[tensor.dtype])

    def _addresses(self, feeds: Mapping[str, Any], output: np.ndarray) -> dict[str, int]:
        found = {}
        for name, value in {**feeds, self._contract.outputs[0].name: output}.items():
            if isinstance(value, Uploaded):
                found[name] = value.memory.address
            else:
                found[name] = self._buffers.setdefault(name, Memory(self._machine.device)).at_least(
                    value.nbytes
                )
        return found

    def _execute(self, shapes: Mapping[str, tuple[int, ...]], addresses: Mapping[str, int]) -> None:
        """Run, as a graph from the second call of one plan on."""
        device = self._machine.device
        plan = (
            tuple(sorted(shapes.items())),
            tuple(sorted(addresses.items())),
            self._machine.scratch.address,
        )
        if plan == self._plan and self._graph is not None:
            device.launch(self._graph)
            return
        if plan != self._plan:
            self._drop_graph()
            self._prepare(shapes, addresses)
            self._enqueue()
            self._plan = (*plan[:2], self._machine.scratch.address)
            return
        device.begin_graph()
        self._enqueue()
        self._graph = device.end_graph()
        device.launch(self._graph)

    def _prepare(self, shapes: Mapping[str, tuple[int, ...]], addresses: Mapping[str, int]) -> None:
        context, device = self._context, self._machine.device
        index = pick(self._profiles, self._contract, self._sizes)
        if index != self._profile:
            self._checked(context.set_optimization_profile_async(index, device.stream), "take the profile")
            self._profile = index
        for name, shape in shapes.items():
            self._checked(context.set_input_shape(name, shape), f"take {name} of {shape}")
        needed = context.update_device_memory_size_for_shapes()
        context.set_device_memory(self._machine.scratch.at_least(needed), needed)
        for name, address in addresses.items():
            self._checked(context.set_tensor_address(name, address), f"take the address of {name}")

    def _enqueue(self) -> None:
        self._checked(self._context.execute_async_v3(self._machine.device.stream), "run")

    def _checked(self, done: bool, what: str) -> None:
        if not done:
            raise EngineError(f"{self._contract.component}: {self._machine.backend} could not {what}")

    def _drop_graph(self) -> None:
        if self._graph is not None:
            self._machine.device.wait()
            self._machine.device.free_graph(self._graph)
        self._graph = None


def locate(bundle: Bundle, backend: str, component: str, precision: str) -> Path:
    """The engine to load: for TensorRT the one built for this GPU, for RTX the one of its architecture."""
    return cache.find(bundle, backend, target(backend), component, precision).path


def needs_graph(path: Path) -> bool:
    """Whether the engine at `path` was stripped: its weights are then read from the graph's files."""
    return bool(cache.read_record(path).options.get("strip"))


def target(backend: str) -> str:
    """What engines of this machine are built for."""
    name = trt.gpu_name(backend)
    return name if trt.flavour_of(backend).targets is None else name.rpartition("-")[2]


def load(path: Path, options: Options) -> TrtSession:
    """Load the engine at `path`, whose record lies beside it."""
    machine = Machine.of(options.backend)
    record, data = cache.read(path)
    profiles = tuple(map(from_json, record.profiles))
    engine = machine.runtime.deserialize_cuda_engine(data)
    if engine is None:
        raise EngineError(
            f"{options.contract.component}: {options.backend} does not load {path.name}; it is of another "
            "version or GPU: build it again with ltx-export build-engines"
        )
    if record.options.get("strip"):
        _give_weights(machine, engine, options)
    if record.options.get("weight_streaming"):
        # Before a context is made. Unless it is set, all weights go to the GPU like those of other engines.
        engine.weight_streaming_budget_v2 = engine.get_weight_streaming_automatic_budget()
    return TrtSession(machine, engine, options.contract, profiles)


def _give_weights(machine: Machine, engine: Any, options: Options) -> None:
    """Fill a stripped engine with the weights of the graph that it was built from."""
    log = machine.package.Logger(machine.package.Logger.ERROR)
    refitter = machine.package.Refitter(engine, log)
    parser = machine.package.OnnxParserRefitter(refitter, log)
    if not parser.refit_from_file(str(options.graph)) or not refitter.refit_cuda_engine():
        raise EngineError(
            f"{options.contract.component}: {options.backend} could not fill the stripped engine with the "
            f"weights of {options.graph}; build it again, without --strip"
        )
