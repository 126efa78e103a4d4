"""A deserialized engine with its context: profiles, shapes, addresses, runs, CUDA graphs.

A call that fails leaves no state behind: the next one sets everything again.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ltxrt.engines.backend import Options
from ltxrt.engines.contract import DTYPES, Contract
from ltxrt.engines.errors import EngineError, setting
from ltxrt.engines.tensorrt import cache
from ltxrt.engines.tensorrt import jit as trt_jit
from ltxrt.engines.tensorrt import log as trt_log
from ltxrt.engines.tensorrt.machine import Machine
from ltxrt.engines.tensorrt.profiles import Profile

Shapes = Mapping[str, tuple[int, ...]]


class LoadedEngine:
    """An engine and its one context, whose memory is the machine's scratch memory.

    graphs: repeat equal calls as a CUDA graph, by the package's own mechanism if it has one. jit: the cache
    file of kernels compiled for this GPU, which is read now and written when the engine is closed.
    """

    def __init__(
        self, machine: Machine, engine: Any, component: str, graphs: bool = False, jit: Path | None = None
    ) -> None:
        self._machine, self._engine, self._component = machine, engine, component
        self._jit = trt_jit.JitCache(jit) if jit is not None and has_runtime_config(machine.package) else None
        self._records = graphs and not has_runtime_config(machine.package)
        self._context: Any = self._new_context(graphs)
        if self._context is None:
            raise self._failure("make a context of the engine")
        self._profile = -1
        self._plan: object = None  # profile, shapes and addresses of the last call, if it succeeded
        self._next: object = None
        self._graph: Any = None

    def start(self, profile: int, shapes: Shapes, addresses: Mapping[str, int]) -> None:
        """Enqueue a call on the machine's stream; call `finish` after waiting for it."""
        plan = (profile, tuple(sorted(shapes.items())), tuple(sorted(addresses.items())))
        same = self._plan == (*plan, self._machine.scratch.address)
        self._plan = None  # until the call has succeeded
        self._machine.log.take()
        if not same:
            self._drop_graph()
            self._prepare(profile, shapes, addresses)
        if not (same and self._launched()):
            self._checked(self._enqueued(), "run")
        self._next = (*plan, self._machine.scratch.address)

    def finish(self) -> None:
        """Raise EngineError for errors that were only logged: RTX may report success in spite of one."""
        if errors := self._machine.log.take():
            raise self._failure("run", errors)
        self._plan = self._next

    def close(self) -> None:
        self._drop_graph()
        if self._jit is not None:
            self._jit.save()
        self._jit = self._context = self._engine = None

    def _new_context(self, graphs: bool) -> Any:
        package = self._machine.package
        managed = package.ExecutionContextAllocationStrategy.USER_MANAGED
        if not has_runtime_config(package):
            return self._engine.create_execution_context(managed)
        config = self._engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(managed)
        # Its own graphs wait until the kernels for these shapes are compiled; a graph captured from outside
        # would keep the generic ones that run until then.
        strategy = package.CudaGraphStrategy
        config.cuda_graph_strategy = strategy.WHOLE_GRAPH_CAPTURE if graphs else strategy.DISABLED
        if self._jit is not None:
            self._jit.give(config)
        return self._engine.create_execution_context(config)

    def _prepare(self, profile: int, shapes: Shapes, addresses: Mapping[str, int]) -> None:
        context, machine = self._context, self._machine
        if profile != self._profile:
            self._profile = -1
            self._checked(
                context.set_optimization_profile_async(profile, machine.device.stream), "take the profile"
            )
            self._profile = profile
        for name, shape in shapes.items():
            self._checked(context.set_input_shape(name, shape), f"take {name} of {shape}")
        needed = context.update_device_memory_size_for_shapes()
        if needed == 0:  # an error, or an engine that needs none
            if errors := machine.log.take():
                raise self._failure("say how much scratch memory it needs", errors)
            needed = self._engine.get_device_memory_size_for_profile_v2(profile)
        context.set_device_memory(machine.scratch.at_least(needed), needed)
        for name, address in addresses.items():
            self._checked(context.set_tensor_address(name, address), f"take the address of {name}")

    def _enqueued(self) -> bool:
        return bool(self._context.execute_async_v3(self._machine.device.stream))

    def _launched(self) -> bool:
        """Repeat the call as a graph, capturing one first if there is none; returns whether that worked."""
        if self._records and self._graph is None:
            self._graph = self._recorded()
            self._records = self._graph is not None  # not tried again; the call is enqueued instead
        if self._graph is None:
            return False
        self._machine.device.launch(self._graph)
        return True

    def _recorded(self) -> Any:
        """A graph of the call, None if it cannot be captured; in both cases the capture has ended."""
        device, context = self._machine.device, self._context
        if hasattr(context, "is_stream_capturable") and not context.is_stream_capturable(device.stream):
            return None
        done, graph = False, None
        device.begin_graph()
        try:
            done = self._enqueued()
        finally:
            graph = self._ended()
        if graph is not None and not done:
            device.free_graph(graph)
            graph = None
        if graph is None:
            self._machine.log.take()  # the reason is not an error of the call
        return graph

    def _ended(self) -> Any:
        try:
            return self._machine.device.end_graph()
        except EngineError:  # a failed enqueue invalidates the capture
            return None

    def _drop_graph(self) -> None:
        if self._graph is not None:
            self._machine.device.wait()
            self._machine.device.free_graph(self._graph)
        self._graph = None

    def _checked(self, done: bool, what: str) -> None:
        if not done:
            raise self._failure(what)

    def _failure(self, what: str, errors: Sequence[str] | None = None) -> EngineError:
        said = trt_log.reason(self._machine.log.take() if errors is None else errors)
        return EngineError(f"{self._component}: {self._machine.backend} could not {what}: {said}")


def has_runtime_config(package: Any) -> bool:
    """Whether contexts are configured with graphs and a cache of compiled kernels, as in TensorRT for RTX."""
    return hasattr(package, "CudaGraphStrategy")


def open_engine(
    machine: Machine, path: Path, options: Options, profiles: Sequence[Profile], graphs: bool
) -> LoadedEngine:
    """Load the engine at `path`, with its record beside it, on the GPU.

    Raises EngineError with the reason if it is not what was built, or if TensorRT refuses it.
    """
    record, data = cache.read(path)
    with data:
        engine = deserialize(machine, data, path, options.contract.component)
    if record.options.get("strip"):
        _give_weights(machine, engine, options)
    streaming = bool(record.options.get("weight_streaming"))
    if streaming:  # before a context is made
        set_budget(machine, engine, options.contract, profiles)
    # Streamed weights are allocated while the engine runs, which a graph cannot contain.
    return LoadedEngine(
        machine,
        engine,
        options.contract.component,
        graphs and not streaming,
        path.with_suffix(trt_jit.SUFFIX),
    )


def deserialize(machine: Machine, data: mmap.mmap, path: Path, component: str) -> Any:
    machine.log.take()
    engine = machine.runtime.deserialize_cuda_engine(data)
    if engine is None:
        errors = machine.log.take()
        if trt_log.ran_out(errors):
            why = trt_log.reason(errors)
        else:
            known = trt_log.invalidity(machine.package, machine.runtime, data)
            guess = "of another version or GPU? build it again with ltx-export build-engines"
            why = "; ".join([*known, *errors[: trt_log.SHOWN]]) or guess
        machine.log.take()
        raise EngineError(f"{component}: {machine.backend} does not load {path.name}: {why}")
    return engine


def set_budget(machine: Machine, engine: Any, contract: Contract, profiles: Sequence[Profile]) -> None:
    """Set how many bytes of streamable weights stay on the GPU: the memory that is left beside scratch
    memory, inputs and outputs of the largest profile.

    Without it, all weights are kept on the GPU as for other engines.
    """
    engine.weight_streaming_budget_v2 = 0  # the scratch memory queried next is then the largest
    scratch = max(engine.get_device_memory_size_for_profile_v2(i) for i in range(len(profiles)))
    room = machine.device.free_memory() + machine.scratch.size - scratch
    room -= max(_largest_io(contract, profile) for profile in profiles)
    budget = max(0, min(engine.streamable_weights_size, room))
    engine.weight_streaming_budget_v2 = budget
    if engine.weight_streaming_budget_v2 != budget:
        raise EngineError(
            f"{contract.component}: {machine.backend} does not keep {budget / 2**30:.2f} GiB of its weights "
            f"on the GPU: {trt_log.reason(machine.log.take())}; build it again "
            f"without {setting('weight_streaming')}"
        )


def _largest_io(contract: Contract, profile: Profile) -> int:
    """Bytes of all inputs and outputs at the largest sizes of `profile`."""
    largest = {symbol: r[2] for symbol, r in profile.ranges_of(contract).items()}
    tensors = (*contract.inputs, *contract.outputs)
    return sum(math.prod(t.resolve(largest)) * DTYPES[t.dtype]().itemsize for t in tensors)


def _give_weights(machine: Machine, engine: Any, options: Options) -> None:
    """Fill a stripped engine with the weights of the graph that it was built from."""
    refitter = machine.package.Refitter(engine, machine.log)
    parser = machine.package.OnnxParserRefitter(refitter, machine.log)
    if not parser.refit_from_file(str(options.graph)) or not refitter.refit_cuda_engine():
        raise EngineError(
            f"{options.contract.component}: {options.backend} could not fill the stripped engine with the "
            f"weights of {options.graph}: {trt_log.reason(machine.log.take())}; build it again, without "
            f"{setting('strip')}"
        )
