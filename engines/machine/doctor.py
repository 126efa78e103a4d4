"""What this machine and this bundle can do together: facts, a verdict, and the command to run next.

The facts are data; `ltxrt.engines.machine.verdict` makes the text of them. Every registered backend is asked.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ltxrt.engines import backend, host, verification
from ltxrt.engines.bundle import Bundle, read_bundle
from ltxrt.engines.errors import EngineError, LtxrtError
from ltxrt.engines.machine import choice, resources
from ltxrt.engines.machine.names import ALIASES, BACKENDS


@dataclass(frozen=True)
class Machine:
    """Bytes of memory and disk; None is what could not be found out."""

    ltxrt: str | None
    python: str
    system: str
    processor: str
    cores: int | None
    memory: resources.Memory | None
    disk_path: str
    disk_free: int | None
    gpus: tuple[resources.Gpu, ...]


@dataclass(frozen=True)
class BackendState:
    """A backend: what it runs on here or why it does not; versions of its packages, None if absent."""

    name: str
    alias: str | None
    usable: bool
    detail: str
    packages: Mapping[str, str | None]
    install: str


@dataclass(frozen=True)
class BundleState:
    """A bundle on the backend that `auto` takes here.

    passed_over: better backends → what they lack; precisions: what would run; refused: components that this
    backend cannot run → why; missing: components that are not in the bundle → what they are for and the
    command that adds them; needed: those of both without which no video is made; engines: a line for each;
    unverified: components of videos without a passing parity check of their graph on this backend.
    """

    path: str
    model: str
    version: str
    licence: str
    bytes: int
    components: Mapping[str, tuple[str, ...]]
    presets: tuple[str, ...]
    backend: str
    passed_over: Mapping[str, str]
    precisions: Mapping[str, str]
    refused: Mapping[str, str]
    missing: Mapping[str, tuple[str, str]]
    needed: tuple[str, ...]
    engines: tuple[str, ...]
    profile: str
    unverified: tuple[str, ...]


@dataclass(frozen=True)
class Examination:
    """Everything that was looked at."""

    machine: Machine
    backends: tuple[BackendState, ...]
    bundle: BundleState | None


def examine(bundle: Path | None = None) -> Examination:
    """Look at this machine, and at a bundle if there is one. Loads no model; raises BundleError as
    `read_bundle`."""
    opened = None if bundle is None else read_bundle(bundle)
    machine = _machine(bundle)
    states = tuple(_backend(name, bool(machine.gpus)) for name in BACKENDS)
    return Examination(machine, states, None if opened is None else _bundle(opened))


def _machine(bundle: Path | None) -> Machine:
    place = Path.cwd() if bundle is None else bundle
    return Machine(
        host.package_version("ltxrt"),
        platform.python_version(),
        f"{platform.system()} {platform.release()} {platform.machine()}",
        host.cpu_name(),
        _cores(),
        resources.memory(),
        str(place),
        resources.disk_free(place),
        resources.gpus(),
    )


def _cores() -> int | None:
    """Processors that this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def _backend(name: str, gpu: bool) -> BackendState:
    packages = backend.packages(name)
    try:
        if backend.needs_gpu(name) and not gpu:
            raise EngineError("it runs on NVIDIA GPUs, and none is visible here")
        usable, detail = True, backend.available(name)
    except LtxrtError as error:
        usable, detail = False, str(error)
    aliases = {full: alias for alias, full in ALIASES.items()}
    versions = {p.distribution: host.package_version(p.distribution) for p in packages}
    extra = packages[0].extra if packages else name
    return BackendState(name, aliases.get(name), usable, detail, versions, f"pip install 'ltxrt[{extra}]'")


def _bundle(opened: Bundle) -> BundleState:
    chosen = choice.best(opened)
    refused, precisions = choice.refusals(opened, chosen.backend), {}
    for name in opened.components:
        if name not in refused and opened.model.component(name).videos != "none":
            precisions[name] = backend.choose(opened, name, chosen.backend)
    rows = opened.model.components
    missing = {
        name: (row.purpose, opened.adding(name))
        for name, row in rows.items()
        if row.videos != "none"
        and name not in opened.components
        # a bundle of single passes alone has no use for what two of them need
        and (row.dispensable is None or row.dispensable[0] in opened.presets)
    }
    return BundleState(
        str(opened.root),
        opened.model.title,
        opened.version,
        opened.licence,
        sum(file.bytes for file in dict.fromkeys(opened.files())),
        {name: tuple(graphs) for name, graphs in opened.components.items()},
        tuple(opened.presets),
        chosen.backend,
        chosen.passed_over,
        precisions,
        refused,
        missing,
        tuple(name for name in (*missing, *refused) if rows[name].videos == "all"),
        tuple(line for describe in backend.descriptions() for line in describe(opened)),
        opened.model.profile.examples[0],
        tuple(verification.unproved(opened, chosen.backend, precisions)),
    )
