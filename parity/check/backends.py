"""Where engines are verified: the registered backends, and emulation as one more beside them."""

from __future__ import annotations

from collections.abc import Callable

from ltxrt.engines.backend import BACKENDS, Session, load_engine, preferred, why_not
from ltxrt.engines.bundle import Bundle
from ltxrt.engines.machine import names
from ltxrt.engines.storage import integrity
from ltxrt.parity.check import emulation


def every() -> tuple[str, ...]:
    """All there are."""
    return *BACKENDS, emulation.BACKEND


def named(name: str) -> str:
    """The backend that `name` means, also by its alias. InputError for no such backend."""
    return name if name == emulation.BACKEND else names.named(name)


def runs(backend: str, precision: str) -> bool:
    """Whether the backend runs the precision at all, on whatever machine. InputError for no such backend."""
    if backend == emulation.BACKEND:
        return precision in emulation.PRECISIONS
    return precision in preferred(backend)


def tried(wanted: tuple[str, ...], precision: str) -> tuple[str, ...]:
    """Where a precision is tried: where it was wanted, or everywhere; emulation where it tells something."""
    if wanted:
        return wanted
    return every() if precision in emulation.PRECISIONS else tuple(BACKENDS)


def unavailable(bundle: Bundle, component: str, precision: str, backend: str) -> str | None:
    """Why this backend cannot run this precision here, None if it can."""
    if backend == emulation.BACKEND:
        return None if precision in emulation.PRECISIONS else f"{precision} needs no emulation"
    return why_not(bundle, component, backend, precision)


def loader(
    bundle: Bundle, component: str, precision: str, backend: str, threads: int | None
) -> Callable[[], Session]:
    """What loads the engine, or the graph that stands in for it."""
    if backend == emulation.BACKEND:
        graph, contract = bundle.components[component][precision], bundle.contract(component)

        def emulated() -> Session:
            integrity.check(bundle.root, (graph.file, *graph.data))
            return emulation.EmulatedSession(bundle.path(graph.file), contract, precision, threads)

        return emulated
    return lambda: (
        load_engine(bundle, component, backend=backend, precision=precision, threads=threads).session
    )
