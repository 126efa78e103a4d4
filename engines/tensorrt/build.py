"""Compiles a graph to a serialized engine with TensorRT or TensorRT for RTX.

One code path for both; they differ in the module's name and in the meaning of a target. TensorRT builds for
the GPU of this machine and measures kernels on it; TensorRT for RTX compiles ahead of time for a list of
architectures, on any machine, and needs no GPU. Networks are strongly typed: precision is the graph's.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ltxrt.engines.contract import Contract
from ltxrt.engines.errors import EngineError, InputError, MissingPackageError, setting
from ltxrt.engines.machine.names import named
from ltxrt.engines.storage.files import atomic_write
from ltxrt.engines.tensorrt import log as trt_log
from ltxrt.engines.tensorrt.build_process import Interruption, monitor, write_engine
from ltxrt.engines.tensorrt.profiles import Profile

FP8_LARGEST = 448.0  # the largest number of E4M3
FP8_TOKENS = 32  # fewest tokens of attention's FP8 kernels: with 31 TensorRT for RTX 1.7 fails to build
FUSED_HEADS = range(16, 257, 8)  # head sizes that attention kernels are made for


@dataclass(frozen=True)
class Flavour:
    """One of the two packages: its module, pip extra and targets; None means the GPU of this machine."""

    module: str
    extra: str
    targets: tuple[str, ...] | None


FLAVOURS = {
    "tensorrt": Flavour("tensorrt", "tensorrt", None),
    "tensorrt_rtx": Flavour("tensorrt_rtx", "tensorrt-rtx", ("sm80", "sm86", "sm89", "sm120", "sm121")),
}
THIS_GPU = "this-gpu"
# What a target cannot compute, with the reason.
UNSUPPORTED = {"fp8": (("sm80", "sm86"), "fp8 needs an Ada GPU or a later one (sm89)")}
_REFUSED_TARGETS = {
    "sm75": "; on Turing it has no 3-D convolutions, and fp32 products give zeros without an error",
}
_REFUSED_PRECISIONS = {
    "fp8-fp16": "its products leave FP8 unscaled in fp16, where they overflow; take fp8, whose base is bf16",
}
RESIZE = "RUNTIME_ACTIVATION_RESIZE_10_10"
RECIPE = 3  # increased when the same options build another engine than before


@dataclass(frozen=True)
class BuildOptions:
    """Options of a build; every field is part of the engine's key.

    optimisation_level 0..5 (TensorRT only: RTX does not measure kernels); weight_streaming lets the runtime
    keep weights in host memory; strip omits the weights, which are then read from the graph's file when the
    engine is loaded (TensorRT only: RTX needs a driver for it). recipe is not for callers: engines of an
    older one still run, and are rebuilt on request.
    """

    optimisation_level: int | None = None
    weight_streaming: bool = False
    strip: bool = False
    recipe: int = RECIPE


@dataclass(frozen=True)
class Built:
    """The result of a build.

    decomposed of attentions: how many may be computed as matrix products, because no fused kernel supports
    them; layers: how many layers of each kind compute in each type.
    """

    decomposed: int
    attentions: int
    layers: dict[str, dict[str, int]]


def package(backend: str) -> Any:
    """The backend's module; MissingPackageError names the extra that brings it."""
    flavour = flavour_of(backend)
    try:
        return importlib.import_module(flavour.module)
    except ImportError as error:
        raise MissingPackageError(flavour.module, flavour.extra) from error


def flavour_of(backend: str) -> Flavour:
    """The row of a backend, also by its alias. InputError for those that run graphs."""
    found = named(backend)
    if found not in FLAVOURS:
        raise InputError(f"{setting('backend')} {backend!r}: engines are built for {', '.join(FLAVOURS)}")
    return FLAVOURS[found]


def check_target(backend: str, target: str, precision: str) -> None:
    """Raise InputError for an unknown target, or one that cannot compute in this precision."""
    known = flavour_of(backend).targets or (THIS_GPU,)
    if target not in known:
        why = _REFUSED_TARGETS.get(target, "")
        raise InputError(f"{setting('target')} {target!r}: {backend} builds for {', '.join(known)}{why}")
    if precision in _REFUSED_PRECISIONS:
        raise InputError(f"{precision} is not for {backend}: {_REFUSED_PRECISIONS[precision]}")
    targets, reason = UNSUPPORTED.get(precision, ((), ""))
    if target in targets:
        raise InputError(f"{setting('target')} {target}: {reason}; build another precision or target")


def build(
    graph: Path,
    contract: Contract,
    backend: str,
    target: str,
    profiles: Sequence[Profile],
    options: BuildOptions,
    output: Path,
    timing_cache: Path | None = None,
    progress: Callable[[float], None] | None = None,
) -> Built:
    """Compile the graph with one optimisation profile per entry of `profiles`, and write the engine to
    `output`.

    TensorRT's kernel timings are kept in `timing_cache` for the next build; RTX does not measure. Raises
    EngineError with the parser's or builder's reason. An interruption ends the build, and so does what
    `progress` raises, which is told the share that is done.
    """
    trt = package(backend)
    log = trt_log.collecting(trt)
    with Interruption() as interruption:
        builder = trt.Builder(log)
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = trt.OnnxParser(network, log)
        if not parser.parse_from_file(str(graph)):
            raise EngineError(
                f"{contract.component}: {backend} does not read {graph.name}: {_parser_errors(parser)}"
            )
        fewest = min((p.ranges[symbol][0] for p in profiles for symbol in contract.tokens), default=0)
        # Constants must live as long as the build, because a network does not copy them.
        built, constants = _settle_attention(trt, network, fewest)
        config = builder.create_builder_config()
        _configure(trt, config, target, options)
        watch = monitor(trt, interruption, progress)  # must live as long as the build
        config.progress_monitor = watch
        timings = None if timing_cache is None else _read_timings(config, timing_cache)
        for profile in profiles:
            config.add_optimization_profile(_optimisation_profile(builder, profile.shapes(contract)))
        done = write_engine(trt, builder, network, config, output)
        del constants
        if watch.error is not None:
            raise watch.error
        if not done:
            reason = trt_log.reason(log.take())
            raise EngineError(f"{contract.component}: {backend} could not build for {target}: {reason}")
    if timings is not None and timing_cache is not None:
        with atomic_write(timing_cache) as temporary:
            temporary.write_bytes(memoryview(timings.serialize()))
    return built


def _read_timings(config: Any, path: Path) -> Any:
    """Load the timings of earlier builds; starts an empty cache if TensorRT refuses them."""
    cache = config.create_timing_cache(path.read_bytes() if path.is_file() else b"")
    if cache is None or not config.set_timing_cache(cache, False):
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, False)
    return cache


def _parser_errors(parser: Any) -> str:
    errors = [parser.get_error(i) for i in range(min(parser.num_errors, trt_log.SHOWN))]
    shown = [
        f"{e.node_name() or 'graph'} ({e.node_operator()}): {' '.join(e.desc().split())[:200]}"
        for e in errors
    ]
    return "; ".join(shown) or "it gave no reason"


def _settle_attention(trt: Any, network: Any, tokens: int) -> tuple[Built, list[np.ndarray]]:
    """Set what the graph cannot express of its attentions: which may be decomposed, and which compute in FP8.

    Attentions without a fused kernel may be decomposed into matrix products; otherwise the builder would
    fail. The others may not, so that a failure to fuse is an error and not a slow engine. Those with
    dequantised inputs become FP8 products; `tokens` is the minimum over all profiles. Also returns the arrays
    that must live until the engine is built.
    """
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    inputs = [layer for layer in layers if layer.type == trt.LayerType.ATTENTION_INPUT]
    makers = {layer.get_output(0).name: layer for layer in layers if layer.num_outputs}
    decomposed, constants = 0, []
    for layer in inputs:
        layer.__class__ = trt.IAttentionInputLayer  # get_layer returns the base class
        query = layer.get_input(0)
        if query.dtype == trt.DataType.FLOAT or query.shape[-1] not in FUSED_HEADS:
            layer.attention.decomposable = True
            decomposed += 1
        elif all(_is_restored(trt, makers, layer.get_input(i)) for i in range(3)):
            constants.append(_quantise_softmax(trt, network, layer.attention))
    if constants and tokens < FP8_TOKENS:
        raise InputError(
            f"attention in FP8 takes {FP8_TOKENS} tokens or more, and a profile begins at {tokens}; give a "
            f"larger smallest size, or export without {setting('fp8_attention')}"
        )
    return Built(decomposed, len(inputs), _layers(layers)), constants


def _is_restored(trt: Any, makers: Mapping[str, Any], tensor: Any) -> bool:
    """Whether an attention's input comes from DequantizeLinear, possibly through the product with the scale's
    square root that the parser inserts (TensorRT moves it behind the product of queries and keys)."""
    maker = makers.get(tensor.name)
    if maker is not None and maker.type == trt.LayerType.ELEMENTWISE:
        maker = makers.get(maker.get_input(0).name)
    return maker is not None and maker.type == trt.LayerType.DEQUANTIZE


def _quantise_softmax(trt: Any, network: Any, attention: Any) -> np.ndarray:
    """Make the softmax's result, 0 to 1, FP8 with the returned scale. Otherwise both products of an attention
    with FP8 inputs are computed in their base type.
    """
    scale = np.array(1 / FP8_LARGEST, np.float32)
    attention.normalization_quantize_scale = network.add_constant((), scale).get_output(0)
    attention.normalization_quantize_to_type = trt.DataType.FP8
    return scale


def _layers(layers: Sequence[Any]) -> dict[str, dict[str, int]]:
    """Kind of layer → type of its first output → number of layers."""
    found: dict[str, dict[str, int]] = {}
    for layer in layers:
        if layer.num_outputs and layer.get_output(0) is not None:
            types = found.setdefault(layer.type.name.lower(), {})
            name = layer.get_output(0).dtype.name.lower()
            types[name] = types.get(name, 0) + 1
    return {kind: dict(sorted(types.items())) for kind, types in sorted(found.items())}


def _configure(trt: Any, config: Any, target: str, options: BuildOptions) -> None:
    if target != THIS_GPU:
        config.num_compute_capabilities = 1
        if not config.set_compute_capability(getattr(trt.ComputeCapability, target.upper()), 0):
            raise EngineError(f"{trt.__name__} {trt.__version__} does not build for {target}; upgrade it")
    if options.optimisation_level is not None:
        config.builder_optimization_level = options.optimisation_level
    if options.weight_streaming:
        config.set_flag(trt.BuilderFlag.WEIGHT_STREAMING)
    elif hasattr(trt.BuilderFlag, "REQUIRE_USER_ALLOCATION"):  # streaming allocates while it runs
        config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)
    if hasattr(trt.PreviewFeature, RESIZE):
        # Without it, scratch memory always has the size for a profile's largest shapes.
        config.set_preview_feature(getattr(trt.PreviewFeature, RESIZE), True)
    if options.strip:
        config.set_flag(trt.BuilderFlag.STRIP_PLAN)
    config.clear_flag(trt.BuilderFlag.TF32)  # fp32 parts of the graph are there for their precision
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # for `engines inspect`


def _optimisation_profile(builder: Any, shapes: Mapping[str, Any]) -> Any:
    profile = builder.create_optimization_profile()
    for name, (smallest, usual, largest) in shapes.items():
        profile.set_shape(name, smallest, usual, largest)
    return profile


def version(backend: str) -> str:
    """The installed version; engines of other versions do not load."""
    return str(package(backend).__version__)


def installed() -> dict[str, str | None]:
    """Each backend's installed version, None if its package is absent."""
    found: dict[str, str | None] = {}
    for backend in FLAVOURS:
        try:
            found[backend] = version(backend)
        except MissingPackageError:
            found[backend] = None
    return found


def gpu_name(backend: str, device: int = 0) -> str:
    """The target of engines for this machine's GPU: its name and compute capability."""
    package(backend)
    try:
        from cuda.bindings import runtime as cuda
    except ImportError as error:
        raise MissingPackageError("cuda-bindings", flavour_of(backend).extra) from error
    status, properties = cuda.cudaGetDeviceProperties(device)
    if int(status) != 0:
        raise EngineError(
            f"{backend} takes the NVIDIA GPU of this machine, and CUDA finds none "
            f"({getattr(status, 'name', status)}); install its driver, or choose {setting('backend')} cpu"
        )
    name = properties.name.decode().strip("\0 ").replace(" ", "-").lower()
    return f"{name}-sm{properties.major}{properties.minor}"
