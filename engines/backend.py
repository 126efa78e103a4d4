"""Loads a bundle's component and calls it, NumPy in and out, with any backend.

All checks against the contract are here; a backend only uploads and runs.

A backend is a row in BACKENDS (`machine/names.py`): its name and its module, which may implement several; one
that runs on NVIDIA GPUs alone is in NEEDS_GPU there too. The
runtime, doctor, parity and the benchmark find backends through the rows and the functions below, which ask
the module; adding a backend is one module and one row. A module has

    PRECISIONS: Mapping[str, tuple[str, ...]]
        per backend the precisions that it can run on some machine, the preferred one first
    PACKAGES: Mapping[str, tuple[Package, ...]]
        per backend the distributions that it needs
    available(backend: str, device: int = 0) -> str
        what it runs on here, in a few words, as "CPU" and the processor's name; raises MissingPackageError,
        EngineError or InputError with the reason if it cannot run here. Loads no model.
    load(path: Path, options: Options) -> Session

and may have

    MANY_CALLS: Mapping[str, int]
        per backend the number of calls from which on it loads in another way, which may round otherwise

and, if it runs engines that were built before instead of a bundle's graphs:

    locate(bundle, backend, component, precision, device: int = 0) -> tuple[Path, ...]
        the engines that fit, the one to load first, then its alternatives; InputError if there is none
    needs_graph(path: Path) -> bool
        whether the engine at `path` takes its weights from the graph's files
    fitting(paths: Sequence[Path], contract, sizes: Mapping[str, int]) -> str
        the file's name and the profile that a call with these sizes takes; InputError if none holds it
    describe(bundle) -> Iterator[str]
        a line of text for each engine in the bundle, of all the module's backends
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np

from ltxrt.engines.bundle import Bundle, FileRecord
from ltxrt.engines.contract import DTYPES, Contract
from ltxrt.engines.errors import EngineError, InputError, LtxrtError, setting
from ltxrt.engines.machine.names import BACKENDS as BACKENDS
from ltxrt.engines.machine.names import NEEDS_GPU
from ltxrt.engines.machine.names import named as named
from ltxrt.engines.machine.refusal import not_run
from ltxrt.engines.parsing.graph_check import check_graph
from ltxrt.engines.parsing.text import quoted
from ltxrt.engines.precision import PRECISIONS
from ltxrt.engines.progress import Progress, Report
from ltxrt.engines.storage import integrity

MOST_THREADS = 1024  # each takes about 100 kB of memory even when idle


@dataclass(frozen=True)
class Package:
    """A distribution that a backend needs: what it is for, and the extra of ltxrt that brings it."""

    distribution: str
    purpose: str
    extra: str


@dataclass(frozen=True)
class Options:
    """How a backend loads a file.

    `threads` None leaves the number to the backend; `graph` is the graph that an engine was built from;
    `calls` is about how often it will be called: for many calls, loading may take longer to make them faster;
    `device` is the number of the GPU; `others` are engines of the same component for other sizes.
    """

    contract: Contract
    threads: int | None = None
    backend: str = "onnxruntime"
    graph: Path | None = None
    calls: int = 1
    device: int = 0
    others: tuple[Path, ...] = ()


class Session(Protocol):
    """A loaded graph. Its inputs are checked and contiguous, either arrays or handles of `upload`."""

    def upload(self, name: str, array: np.ndarray) -> Any:
        """A handle to a copy of `array` where the graph reads it; later changes to `array` have no effect."""

    def run(self, feeds: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """The graph's outputs, by the contract's names. Raises EngineError."""

    def interrupt(self) -> None:
        """Let `run` raise InterruptedRunError, in every thread, until `resume`; never waits for a run.

        A run in progress ends as soon as the backend can: ONNX Runtime before its next operator; TensorRT,
        which enqueues a call as a whole, computes it to its end and discards the outputs.
        """

    def resume(self) -> None:
        """Undo `interrupt`."""

    def close(self) -> None:
        """Free the weights; `run` raises EngineError from now on."""


class BoundEngine:
    """An engine with some inputs bound; call it with the others."""

    def __init__(
        self, contract: Contract, session: Session, static: Mapping[str, Any], sizes: Mapping[str, int]
    ) -> None:
        self.contract = contract
        self._session = session
        self._static = static
        self._sizes = sizes
        self._rest = contract.only([t.name for t in contract.inputs if t.name not in static])

    def __call__(self, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        """The component's outputs for `inputs`, both by the contract's names, dtypes and shapes.

        Nothing is converted. Raises InputError if the inputs violate the contract, EngineError if the engine
        fails or its outputs violate it, InterruptedRunError after `Engine.interrupt`.
        """
        sizes = self._rest.check(inputs, self._sizes)
        feeds = {name: np.ascontiguousarray(array) for name, array in inputs.items()}
        return self._checked(self._session.run({**self._static, **feeds}), sizes)

    def bind(self, **static: np.ndarray) -> BoundEngine:
        """Bind inputs that stay the same between calls; they are checked, copied and uploaded once."""
        sizes = self._rest.only(static).check(static, self._sizes)
        handles = {name: self._session.upload(name, np.ascontiguousarray(a)) for name, a in static.items()}
        return BoundEngine(self.contract, self._session, {**self._static, **handles}, sizes)

    def _checked(self, outputs: Mapping[str, np.ndarray], sizes: Mapping[str, int]) -> dict[str, np.ndarray]:
        """`outputs` in the contract's order; EngineError if they are not the contract's."""
        component, tensors = self.contract.component, self.contract.outputs
        if set(outputs) != {tensor.name for tensor in tensors}:
            raise EngineError(
                f"{component}: the engine returned {', '.join(outputs) or 'nothing'} where the contract says "
                f"{', '.join(map(str, tensors))}; export the component again"
            )
        for tensor in tensors:
            output, wanted = outputs[tensor.name], tensor.resolve(sizes)
            if output.dtype != DTYPES[tensor.dtype] or output.shape != wanted:
                raise EngineError(
                    f"{component}: the engine returned {output.dtype} {output.shape} where the contract says "
                    f"{tensor}, here {wanted}; export the component again"
                )
        return {tensor.name: outputs[tensor.name] for tensor in tensors}


class Engine(BoundEngine):
    """A loaded component; a context manager that frees it."""

    def __init__(self, contract: Contract, session: Session) -> None:
        super().__init__(contract, session, {}, {})

    @property
    def session(self) -> Session:
        """The backend's session, whose calls are not checked against the contract."""
        return self._session

    def interrupt(self) -> None:
        """Let calls raise InterruptedRunError until `resume`, those in progress too; for use from any thread.

        Applies to everything bound to the engine, and to all threads that share it. Never blocks: a call ends
        as soon as the backend can end it (`Session.interrupt`).
        """
        self._session.interrupt()

    def resume(self) -> None:
        """Allow calls again after `interrupt`."""
        self._session.resume()

    def close(self) -> None:
        """Free the engine, also for everything that was bound to it."""
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _module(backend: str) -> Any:
    """The backend's module. InputError for an unknown backend."""
    return importlib.import_module(BACKENDS[named(backend)])


def preferred(backend: str) -> tuple[str, ...]:
    """The precisions that `backend` runs, the preferred one first. InputError for an unknown backend."""
    return tuple(_module(backend).PRECISIONS[named(backend)])


def packages(backend: str) -> tuple[Package, ...]:
    """The distributions that `backend` needs. InputError for an unknown backend."""
    return tuple(_module(backend).PACKAGES[named(backend)])


def needs_gpu(backend: str) -> bool:
    """Whether `backend` runs on NVIDIA GPUs alone. InputError for an unknown backend."""
    return named(backend) in NEEDS_GPU


def available(backend: str, device: int = 0) -> str:
    """What `backend` runs on here, as "CPU …" or "GPU …" with its name; `device` is the number of the GPU.

    Raises MissingPackageError, EngineError or InputError with the reason if it cannot run here.
    """
    return str(_module(backend).available(named(backend), device))


def loads_for_many(backend: str, calls: int) -> bool:
    """Whether an engine for so many calls is loaded otherwise than one for few; False where all are alike."""
    limits: Mapping[str, int] = getattr(_module(backend), "MANY_CALLS", {})
    return backend in limits and calls >= limits[backend]


def builds_engines(backend: str) -> bool:
    """Whether `backend` runs engines built by `ltx-export build-engines` instead of the graphs themselves."""
    return hasattr(_module(backend), "locate")


def why_not(bundle: Bundle, component: str, backend: str, precision: str, device: int = 0) -> str | None:
    """Why `backend` cannot run `component` in `precision` here, in a sentence; None if it can.

    Reads no file and loads no model. InputError for an unknown backend, component or precision.
    """
    bundle.precision(component, precision)
    if precision not in preferred(backend):
        return f"{backend} does not run {precision}"
    try:
        available(backend, device)
        files(bundle, component, backend, precision, device)
    except LtxrtError as error:
        return str(error)
    return None


def descriptions() -> Iterator[Callable[[Bundle], Iterator[str]]]:
    """The functions that describe a bundle's engines, one for each module that runs engines built before."""
    for name in dict.fromkeys(BACKENDS.values()):
        describe = getattr(importlib.import_module(name), "describe", None)
        if describe is not None:
            yield describe


def choose(bundle: Bundle, component: str, backend: str, wanted: str | None = None, device: int = 0) -> str:
    """The precision of `component` that runs on `backend`: `wanted`, or the only one, or the preferred.

    Of a backend that runs engines built before, the preferred of those that were built for this machine.
    Raises InputError if the bundle does not have it, or the backend does not run it.
    """
    backend = named(backend)
    order, has = preferred(backend), bundle.components.get(component, {})
    here = [precision for precision in order if precision in has]
    if wanted is None and len(here) > 1:
        wanted = next(iter(_built(bundle, component, backend, here, device)), None)
    if wanted is None and has and not here:
        wanted = next(iter(has))
    chosen = bundle.precision(component, wanted, order)
    check_runs(bundle, component, backend, chosen)
    return chosen


def check_runs(bundle: Bundle, component: str, backend: str, precision: str) -> None:
    """Raise InputError for a precision that `backend` runs nowhere, whether or not the bundle has it."""
    runs = preferred(backend)
    if precision in PRECISIONS and precision not in runs:
        others = [name for name in BACKENDS if precision in preferred(name)]
        raise not_run(bundle, component, precision, named(backend), runs, others)


def _built(
    bundle: Bundle, component: str, backend: str, precisions: Sequence[str], device: int
) -> Iterator[str]:
    """Those precisions that an engine for this machine is there for, if the backend takes engines."""
    if not builds_engines(backend):
        return
    for precision in precisions:
        try:
            _module(backend).locate(bundle, backend, component, precision, device)
        except LtxrtError:
            continue
        yield precision


def files(
    bundle: Bundle, component: str, backend: str, precision: str | None = None, device: int = 0
) -> list[Path]:
    """The files that `load_engine` will read: the graph and its weights, or one of the engines.

    Raises InputError and MissingPackageError as `load_engine`; reads no file.
    """
    backend = named(backend)
    chosen = choose(bundle, component, backend, precision, device)
    graph = bundle.components[component][chosen]
    if builds_engines(backend):
        return list(_module(backend).locate(bundle, backend, component, chosen, device))
    return [bundle.path(file) for file in (graph.file, *graph.data)]


def fitting(
    bundle: Bundle,
    component: str,
    backend: str,
    precision: str,
    sizes: Mapping[str, int],
    device: int = 0,
) -> str:
    """The name of the file that `load_engine` will take for calls of these sizes, with the engine's profile.

    Raises InputError and MissingPackageError as `load_engine`, and where no engine holds the sizes.
    """
    found = files(bundle, component, backend, precision, device)
    if not builds_engines(backend):
        return found[0].name
    return str(_module(backend).fitting(found, bundle.contract(component), sizes))


def check_files(
    bundle: Bundle,
    component: str,
    backend: str,
    precision: str,
    device: int = 0,
    report: Report | None = None,
) -> None:
    """Raise BundleError if the graph or its weights are not as recorded. A backend that runs another file
    checks it when loading.

    Files that were hashed before in their present state are not read; others take one or two seconds per GB.
    """
    graph = bundle.components[component][precision]
    engines = files(bundle, component, backend, precision, device) if builds_engines(backend) else []
    if not engines or any(map(_module(backend).needs_graph, engines)):
        for record in (graph.file, *graph.data):
            shown = report if record.bytes >= integrity.LARGE else None
            integrity.check(bundle.root, (record,), hashed=shown and _hashing(record, shown))


def _hashing(record: FileRecord, report: Report) -> Callable[[int], None]:
    """Reports how many bytes of a file have been hashed."""
    stage = f"checking {record.path}, once for this copy"
    return lambda done: report(Progress(stage, done, record.bytes, "byte"))


def check_threads(threads: int | None) -> None:
    """Raise InputError unless `threads` is a possible number of CPU threads, or None."""
    if threads is not None and not (type(threads) is int and 1 <= threads <= MOST_THREADS):
        raise InputError(
            f"{setting('threads')} {quoted(threads)}: must be a whole number between 1 and {MOST_THREADS}"
        )


def load_engine(
    bundle: Bundle,
    component: str,
    *,
    backend: str = "onnxruntime",
    precision: str | None = None,
    threads: int | None = None,
    calls: int = 1,
    device: int = 0,
) -> Engine:
    """Load `component` of `bundle` with `backend`.

    `precision` None selects the only one, or the one the backend prefers; `threads` None leaves the number of
    CPU threads to the backend; `calls` is about how often the engine will be called: for many calls, loading
    may take longer to make them faster; `device` is the number of the GPU, for backends on one.

    Raises InputError for an unknown component, precision or backend, MissingPackageError for a backend that
    is not installed, BundleError for a graph that export does not write or files that are not as recorded,
    EngineError for a graph that the backend refuses.
    """
    backend, module = named(backend), _module(backend)
    check_threads(threads)
    chosen = choose(bundle, component, backend, precision, device)
    contract = bundle.contract(component)
    graph = bundle.components[component][chosen]
    path, *rest = files(bundle, component, backend, chosen, device)
    check_graph(bundle, component, chosen)
    check_files(bundle, component, backend, chosen, device)
    others = tuple(rest) if builds_engines(backend) else ()
    options = Options(contract, threads, backend, bundle.path(graph.file), calls, device, others)
    return Engine(contract, module.load(path, options))
