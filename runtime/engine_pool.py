"""The engine pool: which engines run a request, and when they are in memory.

A pool knows a bundle, a backend and the names of components; what a component computes, and in which
order they run, belongs to the pipeline of a model family.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, TypedDict

from ltxrt.engines.backend import (
    BACKENDS,
    Engine,
    check_files,
    check_runs,
    check_threads,
    choose,
    files,
    load_engine,
    loads_for_many,
    named,
    needs_gpu,
)
from ltxrt.engines.bundle import Bundle, read_bundle
from ltxrt.engines.errors import InputError, InterruptedRunError, setting
from ltxrt.engines.machine import Choice, best, names
from ltxrt.engines.parsing.text import quoted
from ltxrt.engines.precision import PRECISIONS, parse
from ltxrt.engines.progress import Report
from ltxrt.engines.storage.files import read_ahead

KEPT_ENGINE_CALLS = 1000  # how often an engine that is kept is expected to be called
Kept = tuple[str, bool]  # a component, and whether it was loaded for many calls


class PoolOptions(TypedDict, total=False):
    """`EnginePool`'s keywords, for code that makes a pool for its caller."""

    backend: str
    precision: str | Mapping[str, str] | None
    threads: int | None
    device: int
    keep_loaded: bool | Collection[str]


class Engines(Protocol):
    """What a pipeline needs of its engines: implemented by `EnginePool`, and by tests and verification."""

    @property
    def bundle(self) -> Bundle:
        """The bundle whose components these are."""

    @property
    def backend(self) -> str:
        """The backend that runs the engines."""

    @property
    def threads(self) -> int | None:
        """CPU threads of an engine; None if the backend decides."""

    @property
    def device(self) -> int:
        """The number of the GPU, for backends on one."""

    @property
    def keep_loaded(self) -> bool | Collection[str]:
        """Whether engines are kept, or the components whose are."""

    def precision(self, component: str) -> str:
        """Which of the bundle's precisions of `component` runs. InputError where none can."""

    def check_available(self, component: str) -> None:
        """Raise InputError where `component` cannot be loaded. No file's content is read."""

    def check_intact(self, component: str, report: Report | None = None) -> None:
        """Raise BundleError where the component's files are not as the bundle records them."""

    def read_ahead(self, component: str) -> AbstractContextManager[None]:
        """Read the component's files while the block runs."""

    def engine(self, component: str, calls: int = 1) -> AbstractContextManager[Engine]:
        """The component's engine, for about so many calls."""

    def interrupt(self) -> None:
        """From any thread: end the calls of the engines that are in use."""

    def close(self) -> None:
        """Free the engines that are kept."""


class EnginePool:
    """The engines of a bundle on one backend: chosen, loaded, kept and freed. Threads may share a pool.

    `backend` is a backend's name or alias, or "auto": the best that runs the bundle here, once for the pool;
    `choice` says which and why. `precision` is one of the bundle's precisions, or maps components to one;
    a component that it does not name takes the only one there is, or what the backend prefers. `threads` None
    leaves the number of CPU threads to the backend; `device` is the number of the GPU, for backends on one.
    `keep_loaded` keeps every engine once it is loaded, for servers with the memory for all of them, until
    `close` or the end of a `with` block. Kept engines are loaded for many calls, in which a backend may sum
    in another order: frames can differ by a rounding from those of a single run. Of a collection of
    components, those engines are kept, and loaded as for a single run, whose frames they give: twice, if both
    few and many calls are asked for and the backend makes a difference.
    """

    def __init__(
        self,
        bundle: Bundle | Path | str,
        *,
        backend: str = names.AUTO,
        precision: str | Mapping[str, str] | None = None,
        threads: int | None = None,
        device: int = 0,
        keep_loaded: bool | Collection[str] = False,
    ) -> None:
        self.bundle = bundle if isinstance(bundle, Bundle) else read_bundle(bundle)
        self._wanted = _by_component(precision, self.bundle)
        check_threads(threads)
        if type(device) is not int or device < 0:
            raise InputError(f"{setting('device')} {quoted(device)}: must be the number of a GPU, from 0")
        if not isinstance(backend, str):
            raise InputError(
                f"{setting('backend')} is of type {type(backend).__name__}; give {names.AUTO}, or one of "
                f"{names.listed()}"
            )
        automatic = backend.strip().lower() == names.AUTO
        self.choice = (
            best(self.bundle, self._wanted, device) if automatic else Choice(named(backend), automatic=False)
        )
        self.backend, self.threads, self.device = self.choice.backend, threads, device
        if device and not needs_gpu(self.backend):
            raise InputError(
                f"{setting('device')} {device}: {self.backend} runs on the CPU; leave it out, or give "
                f"{setting('backend')} {' | '.join(one for one in BACKENDS if needs_gpu(one))}"
            )
        self.keep_loaded = keep_loaded
        self._check_precisions()
        self._changed = threading.Condition()  # the pool's one lock; it guards everything below
        self._kept: dict[Kept, Engine] = {}
        self._loading: set[Kept] = set()
        self._in_use: list[Engine] = []  # once for each block
        self._interrupted: list[Engine] = []
        self._interruptions = 0

    def precision(self, component: str) -> str:
        """Which of the bundle's precisions of `component` runs. InputError where none can."""
        return choose(self.bundle, component, self.backend, self._wanted.get(component), self.device)

    def files(self, component: str) -> list[Path]:
        """What loading `component` will read. InputError where it cannot be loaded."""
        return files(self.bundle, component, self.backend, self.precision(component), self.device)

    def check_available(self, component: str) -> None:
        """Raise InputError where `component` cannot be loaded. No file's content is read."""
        self.files(component)

    def check_intact(self, component: str, report: Report | None = None) -> None:
        """Raise BundleError where the files of `component` are not as the bundle records them.

        What was hashed before in its present state is not read; else a gigabyte takes one or two seconds.
        """
        if not self._is_kept(component):
            precision = self.precision(component)
            check_files(self.bundle, component, self.backend, precision, self.device, report)

    def load(self, component: str, calls: int) -> Engine:
        """A new engine of `component` for about so many calls, which the caller closes."""
        return load_engine(
            self.bundle,
            component,
            backend=self.backend,
            precision=self.precision(component),
            threads=self.threads,
            calls=calls,
            device=self.device,
        )

    @contextmanager
    def read_ahead(self, component: str) -> Iterator[None]:
        """While the block runs, read the files of `component`, so that loading it finds them in memory."""
        with ExitStack() as stack:
            if not self._is_kept(component):
                stack.enter_context(read_ahead(self.files(component)))
            yield

    @contextmanager
    def engine(self, component: str, calls: int = 1) -> Iterator[Engine]:
        """A loaded engine for about so many calls, freed at the block's end unless engines are kept."""
        with self._changed:
            before = self._interruptions
        with ExitStack() as stack:
            if self.keep_loaded is True:
                engine = self._shared(component, KEPT_ENGINE_CALLS)
            elif self.keep_loaded and component in self.keep_loaded:
                engine = self._shared(component, calls)
            else:
                engine = stack.enter_context(self.load(component, calls))
            stack.enter_context(self._used(engine, component, before))
            yield engine

    def interrupt(self) -> None:
        """From any thread: end the calls of all engines that are in use; they raise InterruptedRunError.

        An engine that is kept can be used again once every block that was using it has ended. Who loads an
        engine gets the error when it is loaded. Whoever is between two engines is not seen: pipelines have
        an `interrupt` of their own, which sees their runs as a whole.
        """
        with self._changed:
            self._interruptions += 1
            self._interrupted = list(self._in_use)
            for engine in self._interrupted:
                engine.interrupt()

    def close(self) -> None:
        """Free the engines that are kept; the pool can be used again."""
        with self._changed:
            kept, self._kept = self._kept, {}
        for engine in kept.values():
            engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def _used(self, engine: Engine, component: str, before: int) -> Iterator[None]:
        """Note that a block uses the engine; its last user's end ends an interruption as well.

        `before` is how many interruptions there were when the block asked for it.
        """
        with self._changed:
            if self._interruptions != before:
                raise InterruptedRunError(component)
            self._in_use.append(engine)
        try:
            yield
        finally:
            with self._changed:
                self._in_use.remove(engine)
                if engine in self._interrupted and engine not in self._in_use:
                    engine.resume()
                    self._interrupted = [other for other in self._interrupted if other is not engine]

    def _check_precisions(self) -> None:
        """Raise InputError for a precision that was asked for and that the backend does not run.

        One that the bundle does not have either is refused here for what every video takes, and for the rest
        when a request needs it.
        """
        for component, precision in self._wanted.items():
            has = self.bundle.components.get(component, {})
            if has:
                check_runs(self.bundle, component, self.backend, precision)
            if has and self.bundle.model.component(component).videos == "all":
                choose(self.bundle, component, self.backend, precision, self.device)

    def _is_kept(self, component: str) -> bool:
        with self._changed:
            return any(component == name for name, _ in self._kept)

    def _shared(self, component: str, calls: int) -> Engine:
        """The kept engine of `component`, loaded by the first thread that asks while the others wait."""
        key = (component, loads_for_many(self.backend, calls))
        with self._changed:
            self._changed.wait_for(lambda: key not in self._loading)
            if key in self._kept:
                return self._kept[key]
            self._loading.add(key)
        try:
            engine = self.load(component, calls)  # unlocked: another component may load meanwhile
            with self._changed:
                self._kept[key] = engine
            return engine
        finally:
            with self._changed:
                self._loading.discard(key)
                self._changed.notify_all()


def _by_component(precision: str | Mapping[str, str] | None, bundle: Bundle) -> dict[str, str]:
    """The precision that was asked for of each component. InputError for names that there are not."""
    known = tuple(bundle.model.components)
    given = parse(precision, known) if isinstance(precision, str) else dict(precision or {})
    for component, wanted in given.items():
        if component not in known:
            raise InputError(
                f"{setting('precision')} {quoted(component)}: is no component; they are {', '.join(known)}"
            )
        if wanted not in PRECISIONS:
            raise InputError(
                f"{setting('precision')} {quoted(wanted)}: must be one of {', '.join(PRECISIONS)}"
            )
    return given
