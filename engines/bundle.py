"""The bundle: one folder of data, `bundle.json` and the files it records, that travels to the deployment box.

Untrusted input: read strictly and by bounded size, and no path in it leaves it. Reading checks that every
recorded file is there with its recorded size; `verify` hashes them, and what is loaded is hashed once
(`integrity`). Knows nothing of what a graph computes.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from ltxrt.engines import contract as contracts
from ltxrt.engines.contract import Contract
from ltxrt.engines.errors import BundleError, InputError, setting
from ltxrt.engines.families.ltxv.facts import Facts, Preset, from_json, to_json
from ltxrt.engines.parsing import json_input
from ltxrt.engines.parsing.schema import Most, Within
from ltxrt.engines.storage import integrity, locks
from ltxrt.engines.storage.files import atomic_write, inside, sha256

SCHEMA = 1
FAMILY = "ltx-video"
MANIFEST = "bundle.json"
MANIFEST_LIMIT = 4 << 20  # bytes; a real one has some tens of kilobytes
LARGEST_TABLE = 1 << 28  # elements: a preset's tokens times the transformer's width; a release has 2**26
LARGEST_VIDEO = 1 << 31  # pixels of all frames of a preset; a release has 2**27
AGAIN = "run ltx-export onnx again"

PRECISIONS = ("fp32", "fp16", "bf16", "fp8", "fp8-fp16")
QUANTISED = ("transformer",)  # what there is in fp8

_PURPOSE = {
    "text_encoder": "which reads the prompt",
    "transformer": "which denoises",
    "vae_encoder": "which image conditioning needs",
    "vae_decoder": "which makes pixels of latents",
    "latent_upsampler": "which the second of two passes needs",
    "temporal_upsampler": "which doubles the frames",
}
# What an export of a component is told beside the checkpoint.
_GIVEN = {
    "text_encoder": "--text-encoder DIR ",
    "latent_upsampler": "--upsampler FILE ",
    "temporal_upsampler": "--upsampler FILE ",
}


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

    `weights_map` records a JSON that leads each initialiser back to the checkpoint's tensors; `memory` is
    what the autoencoder's halves need, by which a video is cut into tiles.
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
    """What `bundle.json` says, field for field. `components` is component → precision → graph."""

    schema: int
    family: str
    version: Annotated[str, Most(200)]
    licence: Annotated[str, Most(2000)]
    produced_by: dict[str, str]
    source: dict[str, str]
    facts: Facts
    presets: dict[str, Preset]
    tokenizer: FileRecord | None
    components: dict[str, dict[str, Graph]]

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

    def path(self, record: FileRecord) -> Path:
        """Where a recorded file is."""
        return inside(self.root, record.path)

    def contract(self, component: str) -> Contract:
        """The component's contract, derived from the facts."""
        return contracts.derive(component, self.facts)

    def precision(
        self, component: str, wanted: str | None = None, prefer: Sequence[str] = ("fp32", "fp16")
    ) -> str:
        """`wanted`, or the only precision there is, or the first of `prefer` that there is.

        Raises InputError that says what the bundle has and how to add what it lacks.
        """
        if component not in contracts.COMPONENTS:
            known = ", ".join(contracts.COMPONENTS)
            raise InputError(f"no component is named {component!r:.60}; they are {known}")
        has = self.components.get(component, {})
        if not has:
            single = component == "latent_upsampler" and "single-pass" in self.presets
            way = f"; or run one pass: {setting('preset')} single-pass" if single else ""
            raise InputError(
                f"{self.root}: the bundle has no {component}, {_PURPOSE[component]}; add it with: "
                f"{adding(self.root, component)}{way}"
            )
        if wanted is not None and wanted not in has:
            raise InputError(
                f"{self.root}: the bundle has {component} in {', '.join(has)}, not in {wanted}; "
                f"{_way_to(self.root, component, wanted)}"
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


def adding(root: Path, component: str, precision: str | None = None) -> str:
    """The command that adds a component to the bundle at `root`."""
    scales = " --scales FILE" * (precision is not None and precision.startswith("fp8"))
    chosen = f" --precision {precision}{scales}" if precision is not None else ""
    given = _GIVEN.get(component, "")
    return f"ltx-export onnx CHECKPOINT {given}--component {component}{chosen} --output {root}"


def _way_to(root: Path, component: str, precision: str) -> str:
    """How a bundle gets a component in a precision, where that can be."""
    if precision not in PRECISIONS:
        return f"precisions are {', '.join(PRECISIONS)}"
    if precision.startswith("fp8") and component not in QUANTISED:
        only = ", ".join(QUANTISED)
        return f"only the {only} is quantised: give {setting('precision')} {QUANTISED[0]}={precision}"
    return f"add it with: {adding(root, component, precision)}"


def read_bundle(folder: Path | str) -> Bundle:
    """Read and check a bundle: its schema, its paths, its files' sizes, its contracts.

    Raises BundleError, in one sentence that names the first thing found wrong.
    """
    root = Path(folder)
    return _checked(root, read_manifest(root))


@contextmanager
def reading_bundle(folder: Path | str) -> Iterator[Bundle]:
    """As `read_bundle`; nobody writes to the bundle while the block runs. BundleError where one does."""
    with locks.reading(read_bundle(folder).root):
        yield read_bundle(folder)  # again: it may have changed until it was locked


def read_manifest(root: Path) -> Manifest:
    """`bundle.json` alone, strictly read; the files it records are not looked at."""
    data = _read_json(root)
    schema = data.get("schema") if isinstance(data, dict) else None
    if type(schema) is not int or schema < 1:
        raise BundleError(f"{root / MANIFEST}: no schema number; it is not a bundle's manifest, {AGAIN}")
    if schema > SCHEMA:
        raise BundleError(
            f"{root}: made by a newer ltxrt (bundle schema {schema}, this one reads {SCHEMA}); "
            "upgrade with: pip install --upgrade ltxrt"
        )
    return from_json(Manifest, data, str(root / MANIFEST))


def verify(bundle: Bundle) -> None:
    """Hash every file of the bundle; raise BundleError for the first that is not what was recorded."""
    integrity.check(bundle.root, dict.fromkeys(bundle.files()), afresh=True)


def write_bundle(folder: Path | str, manifest: Manifest) -> Bundle:
    """Check `manifest` against the files that are in `folder`, then write `bundle.json` in one step.

    Raises BundleError where they do not fit, or another command is using the bundle.
    """
    root = Path(folder)
    bundle = _checked(root, check_fields(manifest))
    document = to_json(_manifest(bundle))
    with locks.writing(root), atomic_write(root / MANIFEST) as temporary:
        temporary.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return bundle


def add_to_bundle(folder: Path | str, addition: Manifest) -> Bundle:
    """Write `addition` into the folder's bundle, beside the components that are there, or as a new one.

    What is there need not be whole: a component that is exported again replaces the damaged one. Raises
    BundleError as `write_bundle`.
    """
    root = Path(folder)
    with locks.writing(root):  # from reading to writing, or what another adds meanwhile is lost
        there = (root / MANIFEST).exists()
        return write_bundle(root, merge(root, read_manifest(root), addition) if there else addition)


def merge(root: Path, old: Manifest, new: Manifest) -> Manifest:
    """`old` with everything that `new` has; of a graph in both, `new`'s.

    Raises BundleError where the two describe different models. An export calls this before it starts to work,
    with a `new` that has no components yet.
    """
    for field in ("family", "version", "licence"):
        if getattr(old, field) != getattr(new, field):
            raise _other_model(root, field, getattr(old, field), getattr(new, field))
    components = {
        name: {**old.components.get(name, {}), **new.components.get(name, {})}
        for name in contracts.COMPONENTS
        if name in old.components or name in new.components
    }
    return dataclasses.replace(
        _manifest(new),
        produced_by={**old.produced_by, **new.produced_by},
        source={**old.source, **new.source},
        facts=_merge_facts(root, old.facts, new.facts),
        presets={**old.presets, **new.presets},
        tokenizer=new.tokenizer or old.tokenizer,
        components=components,
    )


def check_fields(manifest: Manifest) -> Manifest:
    """The manifest, or BundleError where it could be written and not be read again."""
    return from_json(Manifest, to_json(_manifest(manifest)), MANIFEST)


def record(root: Path, path: Path) -> FileRecord:
    """The record of a file that is in the bundle's folder; hashes it."""
    relative = path.relative_to(root).as_posix()
    inside(root, relative)
    return FileRecord(relative, path.stat().st_size, sha256(path))


def _manifest(manifest: Manifest) -> Manifest:
    """The manifest alone, of a bundle too."""
    fields = dataclasses.fields(Manifest)
    return Manifest(**{f.name: getattr(manifest, f.name) for f in fields})


def _merge_facts(root: Path, old: Facts, new: Facts) -> Facts:
    merged = {}
    for part in (f.name for f in dataclasses.fields(Facts)):
        before, after = getattr(old, part), getattr(new, part)
        if before is not None and after is not None and before != after:
            name = next(k for k, v in vars(before).items() if v != vars(after)[k])
            raise _other_model(root, f"facts.{part}.{name}", vars(before)[name], vars(after)[name])
        merged[part] = before if after is None else after
    return Facts(**merged)


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
        raise BundleError(f"{root} has no {MANIFEST}: it is half-written or not a bundle; {AGAIN}")
    if path.stat().st_size > MANIFEST_LIMIT:
        raise BundleError(f"{path}: larger than {MANIFEST_LIMIT >> 20} MB, which no manifest is; {AGAIN}")
    try:
        return json_input.read(path, MANIFEST_LIMIT)
    except ValueError as error:
        raise BundleError(f"{path}: not valid JSON ({error}); {AGAIN}") from error


def _checked(root: Path, manifest: Manifest) -> Bundle:
    """`manifest` as the bundle of `root`, or BundleError for the first thing that does not hold."""
    if manifest.family != FAMILY:
        raise BundleError(f"{root}: model family {manifest.family!r}; this ltxrt runs {FAMILY}")
    if "default" not in manifest.presets:
        raise BundleError(f"{root / MANIFEST}: presets has no 'default'; {AGAIN}")
    for name, preset in manifest.presets.items():
        _check_preset(f"{root / MANIFEST}: presets.{name}", preset, manifest.facts)
    _check_contracts(root, manifest.facts, manifest.components)
    for file in manifest.files():
        _check_file(root, file)
    return Bundle(**vars(_manifest(manifest)), root=root)


def _check_preset(where: str, preset: Preset, facts: Facts) -> None:
    """A preset runs without anybody having typed its size: it must be one that memory is there for."""
    pixels = preset.height * preset.width * preset.num_frames
    elements = 0
    if facts.transformer and facts.vae:
        cells = (preset.height // facts.vae.spatial_compression) * (
            preset.width // facts.vae.spatial_compression
        )
        elements = cells * (preset.num_frames // facts.vae.temporal_compression + 1) * facts.transformer.width
    if pixels > LARGEST_VIDEO or elements > LARGEST_TABLE:
        raise BundleError(
            f"{where}: {preset.height}x{preset.width} of {preset.num_frames} frames is larger than any "
            f"release's preset; {AGAIN}"
        )


def _check_contracts(root: Path, facts: Facts, components: Mapping[str, Mapping[str, Graph]]) -> None:
    for component, graphs in components.items():
        try:
            wanted = contracts.derive(component, facts).to_json()
        except InputError as error:
            raise BundleError(f"{root / MANIFEST}: {error}") from error
        for precision, graph in graphs.items():
            if graph.contract != wanted:
                raise BundleError(
                    f"{root}: {component} {precision} was exported for another contract than the facts give; "
                    f"it was made by another version of ltxrt: {AGAIN} with this one"
                )


def _check_file(root: Path, record: FileRecord) -> None:
    path = inside(root, record.path)
    if not re.fullmatch("[0-9a-f]{64}", record.sha256) or record.bytes < 0:
        raise BundleError(
            f"{root / MANIFEST}: the record of {record.path} has no valid size and SHA-256; {AGAIN}"
        )
    if not path.is_file():
        raise BundleError(f"{root}: {record.path} is missing; copy the whole bundle again or {AGAIN}")
    size = path.stat().st_size
    if size != record.bytes:
        raise BundleError(
            f"{root}: {record.path} has {size} bytes, bundle.json says {record.bytes}; "
            f"the copy is incomplete or the file was changed: copy the bundle again or {AGAIN}"
        )
