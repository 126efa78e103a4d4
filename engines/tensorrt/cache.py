"""The engines of a bundle: where they are stored, what makes one valid, and how stale ones are recognised.

    engines/<backend>/<target>/<component>.<precision>.<key>.engine
    engines/<backend>/<target>/<component>.<precision>.<key>.json      everything that the key depends on

The key is a hash of everything that the engine depends on: the graph and its weights, backend and version,
target, profiles, build options. A serialized engine is executable content: it is hashed before it is used,
and one whose record does not fit is reported and not loaded.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import mmap
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ltxrt.engines.bundle import Bundle
from ltxrt.engines.errors import BundleError, EngineError, InputError, setting
from ltxrt.engines.parsing import json_input
from ltxrt.engines.parsing.graph_check import check_graph
from ltxrt.engines.parsing.schema import from_json
from ltxrt.engines.progress import Progress, Report, unreported
from ltxrt.engines.storage import integrity, locks
from ltxrt.engines.storage.files import atomic_write, make_folder, read_small, sha256
from ltxrt.engines.tensorrt import build as trt
from ltxrt.engines.tensorrt.profiles import Profile, check, to_json

SCHEMA = 1
_CHANGED = "its content is not what was built; delete it and build it again"
RECORD_LIMIT = 1 << 20  # bytes
FOLDER = "engines"
TIMINGS = "timing.cache"  # kernel timings of one target; TensorRT checks that they fit
_DECISIVE = (
    "schema", "component", "precision", "backend", "backend_version", "target", "graph", "data", "profiles",
    "options",
)  # fmt: skip


@dataclass(frozen=True)
class Record:
    """Everything that an engine's validity depends on, and a description of it.

    graph, data: SHA-256 of the graph and its external data; decomposed of attentions: how many have no fused
    kernel.
    """

    schema: int
    component: str
    precision: str
    backend: str
    backend_version: str
    target: str
    graph: str
    data: tuple[str, ...]
    profiles: tuple[dict[str, Any], ...]
    options: dict[str, Any]
    attentions: int = 0
    decomposed: int = 0
    layers: dict[str, dict[str, int]] = dataclasses.field(default_factory=dict)
    bytes: int = 0
    sha256: str = ""

    @property
    def key(self) -> str:
        decisive = {name: getattr(self, name) for name in _DECISIVE}
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def name(self) -> str:
        return f"{self.component}.{self.precision}.{self.key}.engine"


@dataclass(frozen=True)
class Found:
    """An engine file, its record if it has a readable one, and its problem, "" if it has none."""

    path: Path
    record: Record | None
    problem: str


@dataclass(frozen=True)
class BuildOrder:
    """An engine to build."""

    component: str
    precision: str
    backend: str
    target: str
    profiles: tuple[Profile, ...]
    options: trt.BuildOptions

    @property
    def stage(self) -> str:
        """What its build is called when progress is reported."""
        return f"{self.component} {self.precision} for {self.target}"


def build(bundle: Bundle, order: BuildOrder, report: Report = unreported) -> Found:
    """The engine of `order`, from the cache if it is there and complete, otherwise built.

    Raises InputError for what cannot be built, before any work; BundleError if the graph's files are not
    those that were exported; EngineError if the build fails. An interruption leaves no file; a second build
    of the same target waits for the first. `report` is told of `order.stage`, and may raise to end the build.
    """
    report(Progress(order.stage))
    graph = bundle.components[order.component][bundle.precision(order.component, order.precision)]
    contract = bundle.contract(order.component)
    trt.check_target(order.backend, order.target, order.precision)
    if not order.profiles:
        raise InputError(f"{setting('profile')} was not given; name the sizes to build for, as in 512x768x97")
    for profile in order.profiles:
        check(profile, contract, graph.memory.elements_per_cell if graph.memory else None)
    wanted = _record(bundle, order)
    folder = bundle.root / FOLDER / order.backend / wanted.target
    try:
        with locks.reading(bundle.root), _build_lock(bundle, order.backend, wanted.target) as folder:
            path = folder / wanted.name
            there = _look(bundle, path, wanted.backend_version)
            if _is_regular(path) and not there.problem and _intact(there):
                report(Progress(order.stage, 100, 100))
                return there
            check_graph(bundle, order.component, order.precision)
            integrity.check(bundle.root, (graph.file, *graph.data))
            with atomic_write(path) as temporary:
                built = trt.build(
                    bundle.path(graph.file), contract, order.backend, order.target, order.profiles,
                    order.options, temporary, folder / TIMINGS if order.target == trt.THIS_GPU else None,
                    functools.partial(_share, report, order),
                )  # fmt: skip
                made = dataclasses.replace(
                    wanted,
                    attentions=built.attentions,
                    decomposed=built.decomposed,
                    layers=built.layers,
                    bytes=temporary.stat().st_size,
                    sha256=sha256(temporary),
                )
            with atomic_write(path.with_suffix(".json")) as temporary:
                temporary.write_text(json.dumps(dataclasses.asdict(made), indent=1), encoding="utf-8")
    except OSError as error:
        raise EngineError(
            f"{order.component}: the engine could not be written to {folder} ({error.strerror or error}); "
            "free some space there or make it writable, and build again"
        ) from error
    report(Progress(order.stage, 100, 100))
    return Found(path, made, "")


def _share(report: Report, order: BuildOrder, done: float) -> None:
    """Report what is built; RTX's phases do not tell, because it compiles everything within one step."""
    tells = order.target == trt.THIS_GPU
    report(Progress(order.stage, round(100 * done, 1), 100) if tells else Progress(order.stage))


def find(bundle: Bundle, backend: str, target: str, component: str, precision: str) -> list[Found]:
    """The engines that fit, newest first; `read` hashes them. Each may have profiles that the others lack.

    Raises InputError if there is none, which names the existing engines and how to build one.
    """
    version = trt.version(backend)
    everything = [
        f for f in engines(bundle, {backend: version}) if f.record and f.record.component == component
    ]
    fitting = [
        f
        for f in everything
        if f.record
        and not f.problem
        and (f.record.backend, f.record.target, f.record.precision) == (backend, target, precision)
    ]
    if fitting:
        return sorted(fitting, key=lambda f: f.path.stat().st_mtime_ns, reverse=True)
    others = "; ".join(_described(f) for f in everything) or "none"
    which = "" if trt.flavour_of(backend).targets is None else f" --target {target}"
    raise InputError(
        f"{bundle.root}: no {backend} engine of {component} {precision} for {target} (there are: {others}); "
        f"build one with ltx-export build-engines --backend {backend}{which}"
    )


def read(path: Path) -> tuple[Record, mmap.mmap]:
    """An engine's record and its content; EngineError if it is not what was built.

    It is hashed unless it already was in its present state, and mapped instead of read, because it may be
    larger than the free memory. The caller closes it.
    """
    record = read_record(path)
    root = path.parents[3]  # of engines/<backend>/<target>/<name>
    if integrity.digest(path, root) != record.sha256 or path.stat().st_size == 0:
        raise EngineError(f"{path}: {_CHANGED}")
    with path.open("rb") as file:
        return record, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def engines(bundle: Bundle, versions: dict[str, str | None]) -> list[Found]:
    """Every engine file of the bundle; `versions` are the installed ones, None if a package is absent."""
    return [
        _look(bundle, path, versions.get(path.parent.parent.name))
        for path in _files(bundle)
        if path.suffix == ".engine" and not path.name.startswith(".")
    ]


def verify(bundle: Bundle, versions: dict[str, str | None], report: Report = unreported) -> list[Found]:
    """As `engines`, but also hashes each file."""
    found = engines(bundle, versions)
    total, done = sum(f.record.bytes for f in found if f.record), 0
    for i, one in enumerate(found):
        report(Progress("hashing engines", done, total, "byte"))
        if not one.problem and not _intact(one):
            found[i] = dataclasses.replace(one, problem="its content is not what was built")
        done += one.record.bytes if one.record else 0
    return found


def prune(bundle: Bundle, found: Sequence[Found]) -> list[Path]:
    """Delete the engines of `found` that have a problem, files without their engine, and leftovers of
    interrupted builds; returns the deleted files.

    Only regular files with the names that `build` gives, in its folders: other files are not known to be
    ours, and links may lead out of the bundle. Raises BundleError if the bundle is in use.
    """
    with locks.writing(bundle.root):
        bad = {f.path for f in found if f.problem}
        names = _names(bundle)
        gone = [path for path in _files(bundle) if _is_left_over(path, bad, names)]
        for path in gone:
            path.unlink()
    return gone


def _names(bundle: Bundle) -> re.Pattern[str]:
    """The names that `build` gives, and `atomic_write` until a file is whole."""
    return re.compile(
        rf"(?P<temporary>\.)?({'|'.join(bundle.model.components)})\.[a-z0-9-]+\.[0-9a-f]{{16}}"
        r"(?(temporary)\.[0-9a-f]{8})\.(engine|json|runtime)"
    )


def _is_left_over(path: Path, bad: Collection[Path], names: re.Pattern[str]) -> bool:
    name = names.fullmatch(path.name)
    if name is None:
        return False
    engine = path.with_suffix(".engine")
    return bool(name["temporary"]) or engine in bad or not engine.exists()


def _files(bundle: Bundle) -> list[Path]:
    """The regular files in folders `engines/<backend>/<target>`, without following links."""
    paths = [bundle.root / FOLDER]
    for _ in range(3):
        folders = [path for path in paths if path.is_dir() and not path.is_symlink()]
        paths = [path for folder in folders for path in sorted(folder.iterdir())]
    return [path for path in paths if _is_regular(path)]


def _is_regular(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _record(bundle: Bundle, order: BuildOrder) -> Record:
    graph = bundle.components[order.component][order.precision]
    return Record(
        schema=SCHEMA,
        component=order.component,
        precision=order.precision,
        backend=order.backend,
        backend_version=trt.version(order.backend),
        target=order.target if order.target != trt.THIS_GPU else trt.gpu_name(order.backend),
        graph=graph.file.sha256,
        data=tuple(file.sha256 for file in graph.data),
        profiles=tuple(to_json(p) for p in order.profiles),
        options=dataclasses.asdict(order.options),
    )


def read_record(path: Path) -> Record:
    """The record of the engine at `path`. OSError, ValueError or BundleError if there is none."""
    record = path.with_suffix(".json")
    return from_json(Record, json_input.parse(read_small(record, RECORD_LIMIT)), record.name)


def _look(bundle: Bundle, path: Path, installed: str | None) -> Found:
    """An engine file and its record, with the first reason against using it."""
    try:
        record = read_record(path)
    except (OSError, ValueError, BundleError):
        return Found(
            path, None, "has no readable record: its build was interrupted, or it is no engine of ltxrt"
        )
    return Found(
        path, record, next((text for wrong, text in _reasons(bundle, path, record, installed) if wrong()), "")
    )


def _reasons(
    bundle: Bundle, path: Path, record: Record, installed: str | None
) -> list[tuple[Callable[[], bool], str]]:
    graph = bundle.components.get(record.component, {}).get(record.precision)
    hashes = (graph.file.sha256, tuple(f.sha256 for f in graph.data)) if graph else None
    return [
        (lambda: record.schema != SCHEMA, f"was made by another ltxrt (schema {record.schema})"),
        (lambda: record.name != path.name, "its record belongs to another engine"),
        (lambda: hashes is None, f"the bundle no longer has {record.component} in {record.precision}"),
        (lambda: hashes != (record.graph, record.data), "was built from another export of the graph"),
        (
            lambda: installed is not None and installed != record.backend_version,
            f"was built by {record.backend} {record.backend_version}; installed is {installed}",
        ),
        (lambda: not path.is_file() or path.stat().st_size != record.bytes, "is cut or was replaced"),
    ]


def _described(found: Found) -> str:
    what = f"{found.record.precision} for {found.record.target}" if found.record else found.path.name
    return f"{what}, which {found.problem}" if found.problem else what


def _intact(found: Found) -> bool:
    return found.record is not None and sha256(found.path) == found.record.sha256


@contextmanager
def _build_lock(bundle: Bundle, backend: str, target: str) -> Iterator[Path]:
    """The folder of a target's engines, locked: one build at a time, others wait."""
    folder = make_folder(bundle.root, FOLDER, backend, target)
    with locks.alone(folder):
        yield folder
