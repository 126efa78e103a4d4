"""The bundle: one folder of data, `bundle.json` and the files it records, that is copied for deployment.

Untrusted input: read strictly and with bounded size, and no path in it leads out of it. Reading checks that
every recorded file exists with its recorded size; `verify` hashes all, and loaded files are hashed once
(`integrity`). Knows nothing of what a graph computes.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from ltxrt.engines import families
from ltxrt.engines.contract import Contract
from ltxrt.engines.errors import BundleError, InputError, setting
from ltxrt.engines.families.preview import Preview
from ltxrt.engines.family import Family
from ltxrt.engines.parsing import json_input
from ltxrt.engines.parsing.schema import Most, Within, from_json, to_json
from ltxrt.engines.precision import PRECISIONS
from ltxrt.engines.storage import integrity, locks
from ltxrt.engines.storage.files import atomic_write, inside, sha256

SCHEMA = 1
MANIFEST = "bundle.json"
MANIFEST_LIMIT = 4 << 20  # bytes; real manifests have some tens of kilobytes
RE_EXPORT = "run ltx-export onnx again"


@dataclass(frozen=True)
class FileRecord:
    """A file of the bundle: path relative to its folder with `/`, size in bytes, SHA-256 in hexadecimal."""

    path: Annotated[str, Most(500, least=1)]
    bytes: Annotated[int, Within(0, 1 << 50)]
    sha256: Annotated[str, Most(64)]


@dataclass(frozen=True)
class Memory:
    """Bounds for one video of n latent cells: `fixed_bytes + bytes_per_cell * n` bytes of activations at
    once, and `elements_per_cell * n` elements in the largest tensor."""

    fixed_bytes: Annotated[int, Within(0, 1 << 50)]
    bytes_per_cell: Annotated[int, Within(1, 1 << 50)]
    elements_per_cell: Annotated[int, Within(1, 1 << 50)]


@dataclass(frozen=True)
class Graph:
    """One component in one precision: the ONNX file, its external data, its contract as JSON.

    `weights_map` records a JSON file that maps initialisers to the checkpoint's tensors; `memory` bounds the
    memory of the autoencoder's halves, from which tiles are computed.
    """

    file: FileRecord
    data: Annotated[tuple[FileRecord, ...], Most(64)]
    weights_map: FileRecord | None
    contract: dict[str, Any]
    memory: Memory | None

    @property
    def files(self) -> tuple[FileRecord, ...]:
        return (self.file, *self.data, *((self.weights_map,) if self.weights_map else ()))


@dataclass(frozen=True)
class Manifest:
    """The contents of `bundle.json`, field by field. `components` is component → precision → graph.

    `facts` and `presets` are of the classes of the family (`ltxrt.engines.families`).
    """

    schema: int
    family: str
    version: Annotated[str, Most(200)]
    licence: Annotated[str, Most(2000)]
    produced_by: dict[str, str]
    source: dict[str, str]
    facts: Any
    presets: dict[str, Any]
    tokenizer: FileRecord | None
    components: dict[str, dict[str, Graph]]
    preview: Preview | None = dataclasses.field(default=None, kw_only=True)  # bundles of before have none

    @property
    def model(self) -> Family:
        """The bundle's model family."""
        return families.named(self.family)

    def files(self) -> Iterator[FileRecord]:
        """Every recorded file."""
        if self.tokenizer:
            yield self.tokenizer
        for graphs in self.components.values():
            for graph in graphs.values():
                yield from graph.files


@dataclass(frozen=True)
class Bundle(Manifest):
    """A manifest whose files were found, and the folder they are in."""

    root: Path

    def __repr__(self) -> str:
        has = [f"{name} {'+'.join(graphs)}" for name, graphs in self.components.items()]
        return f"<Bundle {str(self.root)!r}: {self.model.title} {self.version}; {', '.join(has)}>"

    def path(self, record: FileRecord) -> Path:
        """The path of a recorded file."""
        return inside(self.root, record.path)

    def contract(self, component: str) -> Contract:
        """The component's contract, derived from the facts."""
        return self.model.contract(component, self.facts)

    def precision(
        self, component: str, wanted: str | None = None, prefer: Sequence[str] = ("fp32", "fp16")
    ) -> str:
        """`wanted`, or the only precision, or the first of `prefer` that the bundle has.

        Raises InputError, which says what the bundle has and how to add what is missing.
        """
        row = self.model.component(component)
        has = self.components.get(component, {})
        if not has:
            preset, instead = row.dispensable or ("", "")
            way = f"; or {instead}: {setting('preset')} {preset}" if preset in self.presets else ""
            raise InputError(
                f"{self.root}: the bundle has no {component}, {row.purpose}; add it with: "
                f"{self.adding(component)}{way}"
            )
        if wanted is not None and wanted not in has:
            raise InputError(
                f"{self.root}: the bundle has {component} in {', '.join(has)}, not in {wanted}; "
                f"{self._way_to(component, wanted)}"
            )
        if wanted is not None or len(has) == 1:
            return wanted or next(iter(has))
        for precision in prefer:
            if precision in has:
                return precision
        raise InputError(f"{self.root}: {component} is in {', '.join(has)}; name the precision to use")

    def graph(
        self, component: str, precision: str | None = None, prefer: Sequence[str] = ("fp32", "fp16")
    ) -> Graph:
        """The component's graph; the precision is chosen as `precision()` does."""
        chosen = self.precision(component, precision, prefer)
        return self.components[component][chosen]

    def adding(self, component: str, precision: str | None = None) -> str:
        """The command that adds a component to this bundle."""
        scales = " --scales FILE" * (precision is not None and precision.startswith("fp8"))
        chosen = f" --precision {precision}{scales}" if precision is not None else ""
        option = self.model.component(component).option
        given = f"{option} " * bool(option)
        return f"ltx-export onnx CHECKPOINT {given}--component {component}{chosen} --output {self.root}"

    def _way_to(self, component: str, precision: str) -> str:
        """How to add a component in a precision, if that is possible."""
        if precision not in PRECISIONS:
            return f"precisions are {', '.join(PRECISIONS)}"
        if precision not in self.model.component(component).precisions:
            able = self.model.quantised()
            way = f"{setting('precision')} {able[0]}={precision}"
            return f"only the {', '.join(able)} is quantised: give {way}"
        return f"add it with: {self.adding(component, precision)}"


def read_bundle(folder: Path | str) -> Bundle:
    """Read and check a bundle: its schema, its paths, its files' sizes, its contracts.

    Raises BundleError for the first problem found.
    """
    root = Path(folder)
    return _checked(root, read_manifest(root))


@contextmanager
def reading_bundle(folder: Path | str) -> Iterator[Bundle]:
    """As `read_bundle`, locked against writing during the block. BundleError if that is impossible."""
    with locks.reading(read_bundle(folder).root):
        yield read_bundle(folder)  # again, because it may have changed before it was locked


def read_manifest(root: Path) -> Manifest:
    """`bundle.json` alone, strictly read; the recorded files are not checked."""
    data = _read_json(root)
    schema = data.get("schema") if isinstance(data, dict) else None
    if type(schema) is not int or schema < 1:
        raise BundleError(f"{root / MANIFEST}: no schema number; it is not a bundle's manifest, {RE_EXPORT}")
    if schema > SCHEMA:
        raise BundleError(
            f"{root}: made by a newer ltxrt (bundle schema {schema}, this one reads {SCHEMA}); "
            "upgrade with: pip install --upgrade ltxrt"
        )
    return _decoded(data, str(root / MANIFEST))


def verify(bundle: Bundle) -> None:
    """Hash every file of the bundle; raise BundleError for the first that differs from its record."""
    integrity.check(bundle.root, dict.fromkeys(bundle.files()), afresh=True)


def write_bundle(folder: Path | str, manifest: Manifest) -> Bundle:
    """Check `manifest` against the files in `folder`, then write `bundle.json` atomically.

    Raises BundleError if they do not match, or if another command is using the bundle.
    """
    root = Path(folder)
    bundle = _checked(root, check_fields(manifest))
    document = to_json(_manifest(bundle))
    if bundle.preview is None:
        del document["preview"]  # as in bundles of before, which others may read
    with locks.writing(root), atomic_write(root / MANIFEST) as temporary:
        temporary.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return bundle


def add_to_bundle(folder: Path | str, addition: Manifest) -> Bundle:
    """Add `addition` to the bundle in the folder, or write it as a new one.

    The existing bundle may be damaged: a component that is exported again replaces the damaged one. Raises
    BundleError as `write_bundle`.
    """
    root = Path(folder)
    with locks.writing(root):  # from reading to writing, so that concurrent additions are not lost
        there = (root / MANIFEST).exists()
        return write_bundle(root, merge(root, read_manifest(root), addition) if there else addition)


def merge(root: Path, old: Manifest, new: Manifest) -> Manifest:
    """`old` with everything in `new`, which replaces equal graphs.

    Raises BundleError if they describe different models. An export calls this before its work with a `new`
    that has no components yet.
    """
    for field in ("family", "version", "licence"):
        if getattr(old, field) != getattr(new, field):
            raise _other_model(root, field, getattr(old, field), getattr(new, field))
    components = {
        name: {**old.components.get(name, {}), **new.components.get(name, {})}
        for name in new.model.components
        if name in old.components or name in new.components
    }
    return dataclasses.replace(
        _manifest(new),
        produced_by={**old.produced_by, **new.produced_by},
        source={**old.source, **new.source},
        facts=_merge_facts(root, old.facts, new.facts),
        presets={**old.presets, **new.presets},
        tokenizer=new.tokenizer or old.tokenizer,
        preview=new.preview or old.preview,
        components=components,
    )


def check_fields(manifest: Manifest) -> Manifest:
    """The manifest; BundleError if it could be written but not read again."""
    return _decoded(to_json(_manifest(manifest)), MANIFEST)


def _decoded(data: Any, where: str) -> Manifest:
    """The manifest from parsed JSON, with the facts and presets of the family that it names."""
    name = data.get("family")
    if not isinstance(name, str):
        return from_json(Manifest, data, where)  # raises with the reason
    try:
        family = families.named(name)
    except InputError as error:
        raise BundleError(f"{where}: {error}") from error
    return from_json(Manifest, data, where, {"facts": family.facts, "presets": dict[str, family.preset]})  # type: ignore[name-defined]


def record(root: Path, path: Path) -> FileRecord:
    """The record of a file in the bundle's folder, which is hashed."""
    relative = path.relative_to(root).as_posix()
    inside(root, relative)
    return FileRecord(relative, path.stat().st_size, sha256(path))


def _manifest(manifest: Manifest) -> Manifest:
    """The manifest alone, also of a Bundle."""
    fields = dataclasses.fields(Manifest)
    return Manifest(**{f.name: getattr(manifest, f.name) for f in fields})


def _merge_facts(root: Path, old: Any, new: Any) -> Any:
    merged = {}
    for part in (f.name for f in dataclasses.fields(new)):
        before, after = getattr(old, part), getattr(new, part)
        if before is not None and after is not None and before != after:
            name = next(k for k, v in vars(before).items() if v != vars(after)[k])
            raise _other_model(root, f"facts.{part}.{name}", vars(before)[name], vars(after)[name])
        merged[part] = before if after is None else after
    return type(new)(**merged)


def _other_model(root: Path, field: str, old: Any, new: Any) -> BundleError:
    return BundleError(
        f"{root}: holds components of another checkpoint ({field} is {old!r:.60} there, {new!r:.60} here); "
        "export to a new folder"
    )


def _read_json(root: Path) -> Any:
    path = root / MANIFEST
    if not root.exists():
        raise BundleError(f"bundle {root}: no such folder")
    if not root.is_dir():
        raise BundleError(f"bundle {root}: not a folder; give the folder that holds {MANIFEST}")
    if not path.is_file():
        raise BundleError(f"{root} has no {MANIFEST}: it is half-written or not a bundle; {RE_EXPORT}")
    if path.stat().st_size > MANIFEST_LIMIT:
        raise BundleError(f"{path}: larger than {MANIFEST_LIMIT >> 20} MB, which no manifest is; {RE_EXPORT}")
    try:
        return json_input.read(path, MANIFEST_LIMIT)
    except ValueError as error:
        raise BundleError(f"{path}: not valid JSON ({error}); {RE_EXPORT}") from error


def _checked(root: Path, manifest: Manifest) -> Bundle:
    """`manifest` as the bundle in `root`; BundleError for the first problem found."""
    if "default" not in manifest.presets:
        raise BundleError(f"{root / MANIFEST}: presets has no 'default'; {RE_EXPORT}")
    for name, preset in manifest.presets.items():
        if problem := manifest.model.preset_problem(preset, manifest.facts):
            raise BundleError(f"{root / MANIFEST}: presets.{name}: {problem}; {RE_EXPORT}")
    _check_contracts(root, manifest)
    for file in manifest.files():
        _check_file(root, file)
    return Bundle(**vars(_manifest(manifest)), root=root)


def _check_contracts(root: Path, manifest: Manifest) -> None:
    for component, graphs in manifest.components.items():
        try:
            wanted = manifest.model.contract(component, manifest.facts).to_json()
        except InputError as error:
            raise BundleError(f"{root / MANIFEST}: {error}") from error
        for precision, graph in graphs.items():
            if graph.contract != wanted:
                raise BundleError(
                    f"{root}: {component} {precision} was exported for another contract than the facts give; "
                    f"it was made by another version of ltxrt: {RE_EXPORT} with this one"
                )


def _check_file(root: Path, record: FileRecord) -> None:
    path = inside(root, record.path)
    if not re.fullmatch("[0-9a-f]{64}", record.sha256) or record.bytes < 0:
        raise BundleError(
            f"{root / MANIFEST}: the record of {record.path} has no valid size and SHA-256; {RE_EXPORT}"
        )
    if not path.is_file():
        raise BundleError(f"{root}: {record.path} is missing; copy the whole bundle again or {RE_EXPORT}")
    size = path.stat().st_size
    if size != record.bytes:
        raise BundleError(
            f"{root}: {record.path} has {size} bytes, bundle.json says {record.bytes}; "
            f"the copy is incomplete or the file was changed: copy the bundle again or {RE_EXPORT}"
        )
