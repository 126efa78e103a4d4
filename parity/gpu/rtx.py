"""TensorRT for RTX on a GeForce 40 or 50: engines load and run, their time and memory, parity with torch.

Only parity and the second video use ltxrt's sessions; the rest calls the package itself, to see what it does
with caches, CUDA graphs and memory. Without a GPU an engine is built, and its header read.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from ltxrt.engines.bundle import Bundle
from ltxrt.engines.contract import DTYPES, Contract
from ltxrt.engines.errors import EngineError, LtxrtError, MissingPackageError
from ltxrt.engines.tensorrt import build as trt
from ltxrt.engines.tensorrt import cache, profiles
from ltxrt.engines.tensorrt.cuda import CudaDevice, DeviceBuffer
from ltxrt.parity.check import inputs
from ltxrt.parity.gpu import models
from ltxrt.parity.gpu.backend import COMPONENTS, parity
from ltxrt.parity.gpu.parts import Place, Row, UnavailableError, attempt
from ltxrt.parity.metrics import relative_l2

BACKEND = "tensorrt_rtx"
TARGETS = ("sm89", "sm120")  # RTX 40 and 50
PROFILE = "128..512x128..768x9..121"
SMALL_PROFILE = "128x128x9"
PRECISIONS = ("bf16", "fp8")
LOOSE = 1e-3  # relative L2 of equal calls: kernels that are specialised in between sum in another order
CALLS = 3
PLAN = inputs.Plan(((128, 128, 9),), 2)


def run(place: Place) -> Iterator[Row]:
    package = _package()
    target = TARGETS[0] if place.cpu else _target()
    if place.cpu:
        bundle = models.bundle(place, "small-bundle", ("transformer",), ("fp32",), small=True)
        yield attempt(
            "build transformer fp32", lambda: _built(package, bundle, "transformer", "fp32", target, place)
        )
        return
    bundle = models.bundle(place, "rtx-bundle", COMPONENTS, PRECISIONS, small=True)
    for component in COMPONENTS:
        for precision in (p for p in PRECISIONS if p in bundle.components[component]):
            name = f"{component} {precision}"
            yield attempt(
                f"build {name}", partial(_built, package, bundle, component, precision, target, place)
            )
            yield attempt(f"run {name}", partial(_called, package, bundle, component, precision, target))
    for strategy in ("LAZY", "EAGER", "NONE"):
        for graphs in ("DISABLED", "WHOLE_GRAPH_CAPTURE"):
            yield attempt(
                f"{strategy}, graphs {graphs}",
                partial(_timed, package, bundle, target, strategy, graphs),
            )
    yield attempt("runtime cache", lambda: _runtime_cache(package, bundle, target))
    yield attempt("out of memory", _out_of_memory)
    yield from parity(place, bundle, BACKEND, PLAN)
    yield attempt("a second video", lambda: _second_video(bundle))


def _package() -> Any:
    try:
        return trt.package(BACKEND)
    except MissingPackageError as error:
        raise UnavailableError(f"needs tensorrt-rtx, and a GeForce RTX 40 or 50: {error}") from error


def _target() -> str:
    """What engines of this machine's GPU are built for."""
    from ltxrt.engines.tensorrt import session as trt_session

    try:
        found = trt_session.target(BACKEND)
    except LtxrtError as error:
        raise UnavailableError(f"needs a GeForce RTX 40 or 50: {error}") from error
    if found not in TARGETS:
        raise UnavailableError(
            f"needs a GeForce RTX 40 or 50 ({', '.join(TARGETS)}), and this GPU is {found}"
        )
    return found


def _built(package: Any, bundle: Bundle, component: str, precision: str, target: str, place: Place) -> Row:
    """The engine's build, and what the package says of its first bytes on this machine."""
    if bundle.facts.vae is None:
        raise LtxrtError(f"{bundle.root}: has no facts of a VAE")
    profile = profiles.parse(SMALL_PROFILE if place.cpu else PROFILE, bundle.facts)
    start = time.monotonic()
    found = cache.build(
        bundle, cache.BuildOrder(component, precision, BACKEND, target, (profile,), trt.BuildOptions())
    )
    seconds = time.monotonic() - start
    runtime = package.Runtime(package.Logger(package.Logger.ERROR))
    header = found.path.read_bytes()[: runtime.engine_header_size]
    validity = runtime.get_engine_validity(header)
    figures = {"MB": found.path.stat().st_size / 1e6, "s": seconds, "validity": str(validity)}
    return Row(f"build {component} {precision}", found.path.stat().st_size > 0, figures)


class Loaded:
    """An engine with buffers of its own, called with one feed."""

    def __init__(
        self, package: Any, engine: Any, contract: Contract, feed: dict[str, np.ndarray], config: Any = None
    ) -> None:
        self.device = CudaDevice("tensorrt-rtx")
        self._arrays = feed
        start = time.monotonic()
        self.context = (
            engine.create_execution_context(config) if config else engine.create_execution_context()
        )
        self.seconds = time.monotonic() - start
        if self.context is None:
            raise EngineError("no context could be made of the engine")
        sizes: dict[str, int] = {}
        for tensor in contract.inputs:
            contract.bind(tensor, feed[tensor.name], sizes)
        self.outputs = {t.name: np.empty(t.resolve(sizes), DTYPES[t.dtype]) for t in contract.outputs}
        self._memory = {name: DeviceBuffer(self.device) for name in (*feed, *self.outputs)}
        for name, array in {**feed, **self.outputs}.items():
            self.context.set_tensor_address(name, self._memory[name].at_least(array.nbytes))
        for name, array in feed.items():
            self.context.set_input_shape(name, array.shape)
            self.device.upload(self._memory[name].address, array)
        self.device.wait()

    def call(self) -> dict[str, np.ndarray]:
        if not self.context.execute_async_v3(self.device.stream):
            raise EngineError("the engine did not run")
        for name, output in self.outputs.items():
            self.device.download(output, self._memory[name].address)
        self.device.wait()
        return {name: output.copy() for name, output in self.outputs.items()}

    def close(self) -> None:
        self.context = None
        for memory in self._memory.values():
            memory.release()


def _engine(package: Any, bundle: Bundle, component: str, precision: str, target: str) -> Any:
    path = cache.find(bundle, BACKEND, target, component, precision)[0].path
    runtime = package.Runtime(package.Logger(package.Logger.WARNING))
    engine = runtime.deserialize_cuda_engine(path.read_bytes())
    if engine is None:
        raise EngineError(f"{path.name} does not load: {runtime.get_engine_validity(path.read_bytes()[:64])}")
    return engine


def _feed(bundle: Bundle, component: str, cells: tuple[int, int, int] = (2, 8, 8)) -> dict[str, np.ndarray]:
    f, h, w = cells
    batch = 1 if component.startswith("vae") else 2
    sizes = {"B": batch, "N": f * h * w, "K": 1, "T": 128, "f": f, "h": h, "w": w}
    return dict(bundle.contract(component).sample(sizes, np.random.default_rng(0)))


def _called(package: Any, bundle: Bundle, component: str, precision: str, target: str) -> Row:
    """Three equal calls, the scratch memory of this and of the largest shape, whether it can be captured."""
    engine = _engine(package, bundle, component, precision, target)
    loaded = Loaded(package, engine, bundle.contract(component), _feed(bundle, component))
    capturable = bool(loaded.context.is_stream_capturable(loaded.device.stream))
    outputs = [loaded.call() for _ in range(CALLS)]
    apart = max(relative_l2(one[name], outputs[0][name]) for one in outputs for name in one)
    small = loaded.context.update_device_memory_size_for_shapes()
    figures: dict[str, object] = {
        "context s": loaded.seconds,
        "capturable": capturable,
        "equal calls apart": apart,
        "scratch here MB": small / 1e6,
        "scratch of the profile MB": engine.get_device_memory_size_for_profile_v2(0) / 1e6,
    }
    loaded.close()
    finite = all(np.isfinite(array).all() and float(array.std()) > 0 for array in outputs[0].values())
    return Row(f"run {component} {precision}", finite and apart <= LOOSE, figures)


def _timed(package: Any, bundle: Bundle, target: str, strategy: str, graphs: str) -> Row:
    """The transformer's calls under a way to specialise kernels and to use CUDA graphs."""
    engine = _engine(package, bundle, "transformer", "bf16", target)
    config = engine.create_runtime_config()
    strategies, capture = package.DynamicShapesKernelSpecializationStrategy, package.CudaGraphStrategy
    config.dynamic_shapes_kernel_specialization_strategy = getattr(strategies, strategy)
    config.cuda_graph_strategy = getattr(capture, graphs)
    loaded = Loaded(package, engine, bundle.contract("transformer"), _feed(bundle, "transformer"), config)
    milliseconds = []
    for _ in range(20):
        start = time.perf_counter()
        outputs = loaded.call()
        milliseconds.append(1000 * (time.perf_counter() - start))
    loaded.close()
    figures = {"first ms": milliseconds[0], "least ms": min(milliseconds), "last ms": milliseconds[-1]}
    return Row(
        f"{strategy}, graphs {graphs}",
        all(np.isfinite(output).all() for output in outputs.values()),
        {**figures, "context s": loaded.seconds},
    )


def _runtime_cache(package: Any, bundle: Bundle, target: str) -> Row:
    """A context made cold, and again with what the first had compiled."""
    seconds, kept = [], b""
    for _ in ("cold", "warm"):
        engine = _engine(package, bundle, "transformer", "bf16", target)
        config = engine.create_runtime_config()
        compiled = config.create_runtime_cache()
        if kept and not compiled.deserialize(kept):
            raise EngineError("the runtime cache that the package wrote does not load again")
        config.set_runtime_cache(compiled)
        loaded = Loaded(package, engine, bundle.contract("transformer"), _feed(bundle, "transformer"), config)
        start = time.monotonic()
        loaded.call()
        seconds.append(loaded.seconds + time.monotonic() - start)
        loaded.close()
        kept = bytes(memoryview(compiled.serialize()))
    figures = {"cold s": seconds[0], "warm s": seconds[1], "MB": len(kept) / 1e6}
    return Row("runtime cache", bool(kept) and seconds[1] <= seconds[0], figures)


def _out_of_memory() -> Row:
    """An allocation beyond the GPU's memory is refused, and the device works afterwards."""
    device = CudaDevice("tensorrt-rtx")
    try:
        device.allocate(1 << 42)
    except EngineError as error:
        device.free(device.allocate(1 << 20))
        return Row("out of memory", True, {"message": str(error)})
    return Row("out of memory", False, problem="4 TiB were allocated")


def _second_video(bundle: Bundle) -> Row:
    """Two equal requests to one pipeline: the second uses the first's buffers and gives the same video."""
    from ltxrt.runtime.ltxv.pipeline import Pipeline
    from ltxrt.runtime.request.request import Request

    size = {"height": 128, "width": 128, "num_frames": 9, "steps": 2}
    pipeline = Pipeline(bundle, backend=BACKEND, precision=dict.fromkeys(COMPONENTS, "bf16"))
    request = Request("waves", seed=1, **size)  # type: ignore[arg-type]
    first, second = (pipeline.generate(request).frames.astype(int) for _ in range(2))
    apart = int(np.abs(first - second).max())
    return Row("a second video", apart <= 1, {"largest difference of 255": apart, "frames": len(first)})
