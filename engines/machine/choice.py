"""Which backend runs a bundle on this machine, where the user names none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ltxrt.engines import backend as backends
from ltxrt.engines.bundle import Bundle
from ltxrt.engines.errors import LtxrtError
from ltxrt.engines.machine import resources
from ltxrt.engines.machine.names import BACKENDS


@dataclass(frozen=True)
class Choice:
    """A backend, and why better ones were passed over: backend → reason. Empty where there is no GPU.

    automatic: it was chosen here; False if it was asked for.
    """

    backend: str
    passed_over: Mapping[str, str] = field(default_factory=dict)
    automatic: bool = True

    def sentence(self, device: int = 0) -> str:
        """For people: what runs and on what, and what the best one passed over lacks.

        Raises as `backend.available` if the backend cannot run here.
        """
        place = backends.available(self.backend, device)
        reasons = [f"; not {name}: {reason}" for name, reason in list(self.passed_over.items())[:1]]
        return f"backend: {self.backend} ({place}){''.join(reasons)}"


def best(bundle: Bundle, precision: Mapping[str, str] | None = None, device: int = 0) -> Choice:
    """The best backend that runs every component of `bundle` here, in these precisions.

    Where none runs all of them, the one that runs most: what it lacks is refused when a request needs it.
    Loads no model; without a GPU it does not even load a backend's package.
    """
    gpu = bool(resources.gpus())
    order = [name for name in reversed(BACKENDS) if gpu or not backends.needs_gpu(name)]
    if len(order) == 1:
        return Choice(order[0])
    passed: dict[str, str] = {}
    running: dict[str, int] = {}
    for name in order:
        reasons = refusals(bundle, name, precision, device)
        running[name] = len(bundle.components) - len(reasons)
        if not reasons:
            return Choice(name, passed)
        passed[name] = next(iter(reasons.values()))
    chosen = max(order, key=lambda name: running[name])
    return Choice(chosen, {n: why for n, why in passed.items() if order.index(n) < order.index(chosen)})


def refusals(
    bundle: Bundle, name: str, precision: Mapping[str, str] | None = None, device: int = 0
) -> dict[str, str]:
    """Component → why this backend cannot run it here, of those that a video may take."""
    found: dict[str, str] = {}
    for component, graphs in bundle.components.items():
        wanted = (precision or {}).get(component)
        unused = bundle.model.component(component).videos == "none"
        if unused or (wanted is not None and wanted not in graphs):
            continue  # that precision is refused when a request needs the component
        try:
            backends.available(name, device)
            backends.files(bundle, component, name, wanted, device)
        except LtxrtError as error:
            found[component] = str(error)
    return found
