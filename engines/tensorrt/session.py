"""The TensorRT backends: a bundle's engine loaded and called, its inputs kept on the GPU.

One code path for TensorRT and TensorRT for RTX. Buffers are allocated once and grow; bound inputs are
uploaded once; scratch memory is one allocation that all engines of a process share, because they run one
after another. Threads may share sessions: calls take turns.

Not verified on a GPU: see the README's table.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ltxrt.engines.backend import Options, Package
from ltxrt.engines.bundle import Bundle
from ltxrt.engines.contract import DTYPES, Contract
from ltxrt.engines.errors import EngineError, InputError, InterruptedRunError, setting
from ltxrt.engines.tensorrt import build as trt
from ltxrt.engines.tensorrt import cache
from ltxrt.engines.tensorrt.cuda import DeviceBuffer
from ltxrt.engines.tensorrt.engine import LoadedEngine, open_engine
from ltxrt.engines.tensorrt.machine import Machine
from ltxrt.engines.tensorrt.profiles import Profile, from_json, pick

# No fp8-fp16: RTX stores an FP8 product in the base's type before it is scaled, and fp16 overflows at 65504.
PRECISIONS = dict.fromkeys(trt.FLAVOURS, ("fp8", "bf16", "fp16", "fp32"))
PACKAGES = {
    "tensorrt": (
        Package("tensorrt", "runs engines on NVIDIA GPUs", "tensorrt"),
        Package("cuda-bindings", "GPU memory for both TensorRTs", "tensorrt"),
    ),
    "tensorrt_rtx": (
        Package("tensorrt-rtx", "builds engines anywhere, runs them on RTX GPUs", "tensorrt-rtx"),
        Package("cuda-bindings", "GPU memory for both TensorRTs", "tensorrt"),
    ),
}
GRAPHS = "LTXRT_CUDA_GRAPHS"  # environment variable: 1 repeats equal calls as CUDA graphs


@dataclass(frozen=True)
class Uploaded:
    """An input that stays on the device; `shape` is its shape before padding."""

    memory: DeviceBuffer
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Choice:
    """An existing engine: its profiles, and how it is loaded."""

    profiles: tuple[Profile, ...]
    load: Callable[[], LoadedEngine]


class TrtSession:
    """A component's engines, one of them loaded; an `ltxrt.engines.backend.Session` whose handles are
    `Uploaded`.

    Of several engines for different sizes, the first call determines which is loaded; a later call that does
    not fit loads another one instead. Inputs are padded along the contract's `padding` (text, to multiples of
    64 tokens), so that kernels compiled for one prompt serve the next; masked tokens have a weight of exactly
    zero.
    """

    def __init__(self, machine: Machine, contract: Contract, choices: Sequence[Choice]) -> None:
        self._machine, self._contract, self._choices = machine, contract, tuple(choices)
        self._buffers: dict[str, DeviceBuffer] = {}
        self._uploaded: weakref.WeakSet[Uploaded] = weakref.WeakSet()
        self._chosen: Choice | None = None
        self._loaded: LoadedEngine | None = None
        self._open, self._interrupted = True, threading.Event()
        machine.join(self)
        if len(self._choices) == 1:
            with machine.turn():
                self._take(self._choices[0])

    def upload(self, name: str, array: np.ndarray) -> Uploaded:
        machine = self._machine
        with machine.turn():
            memory, padded = DeviceBuffer(machine.device), self._padded(name, array)
            memory.at_least(padded.nbytes)
            machine.device.upload(memory.address, padded)
            machine.device.wait()  # before the array may change
            handle = Uploaded(memory, array.shape)
            weakref.finalize(
                handle, machine.drop, memory
            )  # a step that binds other inputs releases the old ones
            self._uploaded.add(handle)
            return handle

    def run(self, feeds: Mapping[str, Any]) -> dict[str, np.ndarray]:
        self._check_interrupted()  # rather than wait for the other engines' turns
        with self._machine.turn():
            if not self._open:
                raise EngineError(f"{self._contract.component}: the engine is closed")
            self._check_interrupted()
            given = self._sizes({name: tuple(value.shape) for name, value in feeds.items()})
            sizes = {symbol: self._padded_size(symbol, value) for symbol, value in given.items()}
            outputs = self._run(feeds, sizes)
            self._check_interrupted()
            shapes = {tensor.name: tensor.resolve(given) for tensor in self._contract.outputs}
            return {
                name: np.ascontiguousarray(array[tuple(map(slice, shapes[name]))])
                for name, array in outputs.items()
            }

    def interrupt(self) -> None:
        """Enqueued work runs to its end: CUDA has no call to stop it."""
        self._interrupted.set()

    def resume(self) -> None:
        self._interrupted.clear()

    def close(self) -> None:
        with self._machine.turn():
            self._unload()
            for memory in (*self._buffers.values(), *(handle.memory for handle in self._uploaded)):
                memory.release()
            self._buffers, self._open = {}, False
            self._machine.leave(self)

    def _run(self, feeds: Mapping[str, Any], sizes: Mapping[str, int]) -> dict[str, np.ndarray]:
        """The outputs of a call at padded sizes."""
        device = self._machine.device
        loaded, profile = self._holding(sizes)
        outputs = {t.name: np.empty(t.resolve(sizes), DTYPES[t.dtype]) for t in self._contract.outputs}
        arrays = {n: self._padded(n, v) for n, v in feeds.items() if isinstance(v, np.ndarray)}
        fixed = {n: v.memory.address for n, v in feeds.items() if isinstance(v, Uploaded)}
        places = {n: self._place(n, a.nbytes) for n, a in {**arrays, **outputs}.items()}
        for name, array in arrays.items():
            device.upload(places[name], array)
        shapes = {name: self._contract.input(name).resolve(sizes) for name in feeds}
        loaded.start(profile, shapes, {**fixed, **places})
        for name, output in outputs.items():
            device.download(output, places[name])
        device.wait()
        loaded.finish()
        return outputs

    def _check_interrupted(self) -> None:
        if self._interrupted.is_set():
            raise InterruptedRunError(self._contract.component)

    def _sizes(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
        """The symbols' values in a call with inputs of these shapes."""
        sizes: dict[str, int] = {}
        for tensor in self._contract.inputs:
            empty = np.lib.stride_tricks.as_strided(np.zeros(1, DTYPES[tensor.dtype]), shapes[tensor.name],
                                                    (0,) * len(shapes[tensor.name]))  # fmt: skip
            self._contract.bind(tensor, empty, sizes)
        return sizes

    def _padded_size(self, symbol: str, size: int) -> int:
        """The next multiple of the symbol's step, at most the largest that the profiles for `size` accept."""
        step = self._contract.padding.get(symbol)
        if step is None:
            return size
        most = [p.ranges[symbol][2] for choice in self._choices for p in choice.profiles]
        larger = [m for m in most if m >= size]
        return min(-(-size // step) * step, *larger) if larger else size

    def _padded(self, name: str, array: np.ndarray) -> np.ndarray:
        """Append zeros along each axis that is padded."""
        shape = self._contract.input(name).shape
        more = [
            (0, self._padded_size(d, n) - n if isinstance(d, str) else 0) for d, n in zip(shape, array.shape)
        ]
        return np.pad(array, more) if any(after for _, after in more) else array

    def _place(self, name: str, size: int) -> int:
        return self._buffers.setdefault(name, DeviceBuffer(self._machine.device)).at_least(size)

    def _holding(self, sizes: Mapping[str, int]) -> tuple[LoadedEngine, int]:
        """A loaded engine whose profile holds the call, and the profile's index; prefers the engine that is
        loaded already to a narrower one.
        """
        there = self._chosen
        if there is None or not any(p.holds(self._contract, sizes) for p in there.profiles):
            rows = [(choice, profile) for choice in self._choices for profile in choice.profiles]
            there = rows[pick([profile for _, profile in rows], self._contract, sizes)][0]
        return self._take(there), pick(there.profiles, self._contract, sizes)

    def _take(self, choice: Choice) -> LoadedEngine:
        if self._loaded is None or choice is not self._chosen:
            self._unload()
            self._loaded, self._chosen = choice.load(), choice
        return self._loaded

    def _unload(self) -> None:
        if self._loaded is not None:
            self._loaded.close()
        self._loaded = self._chosen = None


def available(backend: str, device: int = 0) -> str:
    """The GPU that `backend` builds and runs engines for."""
    target(backend, device)
    return f"GPU {trt.gpu_name(backend, device)}"


def locate(bundle: Bundle, backend: str, component: str, precision: str, device: int = 0) -> tuple[Path, ...]:
    """The engines to load, newest first: for TensorRT those built for this GPU, for RTX those of its
    architecture."""
    found = cache.find(bundle, backend, target(backend, device), component, precision)
    return tuple(f.path for f in found)


def needs_graph(path: Path) -> bool:
    """Whether the engine at `path` is stripped, so that its weights are read from the graph's files."""
    return bool(cache.read_record(path).options.get("strip"))


def fitting(paths: Sequence[Path], contract: Contract, sizes: Mapping[str, int]) -> str:
    """The engine and the profile that a call with these sizes takes. InputError if none holds it."""
    rows = [
        (path, from_json(profile, contract)) for path in paths for profile in cache.read_record(path).profiles
    ]
    path, profile = rows[pick([profile for _, profile in rows], contract, sizes)]
    return f"{path.name}, profile {profile.text}"


def describe(bundle: Bundle) -> Iterator[str]:
    """A line of text for each engine in the bundle: what it fits, or why it would not load."""
    installed = trt.installed()
    for engine in cache.engines(bundle, installed):
        place = engine.path.relative_to(bundle.root)
        yield f"{place}: {engine.problem or _fits(engine, installed)}"


def _fits(engine: cache.Found, installed: Mapping[str, str | None]) -> str:
    """What an engine without a known problem fits; nothing is known of a package that is not installed."""
    if engine.record is None:
        return "has no record"
    backend = engine.record.backend
    version = installed.get(backend)
    if version is not None:
        return f"fits the bundle and the installed {backend} {version}"
    wanted = f"fits the bundle; it takes {backend} {engine.record.backend_version}"
    if backend not in trt.FLAVOURS:
        return f"{wanted}, which this ltxrt does not know"
    return f"{wanted}, and no {backend} is installed: pip install 'ltxrt[{trt.FLAVOURS[backend].extra}]'"


def target(backend: str, device: int = 0) -> str:
    """The target of engines for this machine. InputError if the backend does not build for its GPU."""
    name, known = trt.gpu_name(backend, device), trt.flavour_of(backend).targets
    if known is None:
        return name
    if (architecture := name.rpartition("-")[2]) not in known:
        raise InputError(
            f"this GPU is {name}, and {backend} builds for {', '.join(known)} only; "
            f"use {setting('backend')} tensorrt"
        )
    return architecture


def load(path: Path, options: Options) -> TrtSession:
    """A session of the engine at `path`, with its record beside it, and of those in `options.others`.

    A single one is loaded at once; of several, the one that the first call needs.
    """
    machine = Machine.of(options.backend, options.device)
    graphs = os.environ.get(GRAPHS) == "1"
    choices = []
    for one in (path, *options.others):
        profiles = tuple(from_json(p, options.contract) for p in cache.read_record(one).profiles)
        choices.append(Choice(profiles, partial(open_engine, machine, one, options, profiles, graphs)))
    return TrtSession(machine, options.contract, choices)
