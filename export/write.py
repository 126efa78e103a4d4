"""A checkpoint to a bundle: trace each component, stream its weights, record what was made."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir

from ltxrt.engines.bundle import (
    MANIFEST,
    SCHEMA,
    FileRecord,
    Graph,
    Manifest,
    Memory,
    add_to_bundle,
    check_fields,
    merge,
    read_manifest,
    record,
    write_bundle,
)
from ltxrt.engines.contract import Contract
from ltxrt.engines.errors import InputError, LtxrtError, setting
from ltxrt.engines.families import derive
from ltxrt.engines.host import package_version
from ltxrt.engines.parsing.graph_check import check_file
from ltxrt.engines.parsing.wire import WireError
from ltxrt.engines.progress import Progress, Report, unreported
from ltxrt.engines.storage import locks
from ltxrt.engines.storage.files import atomic_write, inside, make_folder, removed_on_failure
from ltxrt.export import components, families
from ltxrt.export.checkpoint.part import Checkpoint
from ltxrt.export.graph import fp8
from ltxrt.export.graph.memory import per_cell
from ltxrt.export.graph.trace import PRECISIONS, Traced, trace
from ltxrt.export.graph.weights import IR_DTYPES, stream, weights_map
from ltxrt.export.progress import CHECKING, TRACING, WRITING, expected, stage

BASE = {"fp8": "bf16", "fp8-fp16": "fp16"}  # what is not quantised, and what scales are in
PACKAGES = ("ltxrt", "torch", "onnx", "onnxscript", "onnx-ir")


@dataclass(frozen=True)
class Plan:
    """Which components to export, each in which precision, from where to where."""

    checkpoint: Checkpoint
    folder: Path
    precisions: Mapping[str, str]  # component → precision
    scales: Path | None = None  # of the activations, for FP8; None: not calibrated
    fp8_attention: bool = False  # quantise queries, keys and values too

    @property
    def stages(self) -> dict[str, float]:
        """What `export_bundle` reports, in order, with about how many seconds each stage takes."""
        return expected(self.checkpoint, self.precisions)

    @property
    def tokenizer(self) -> components.Component | None:
        """The component that brings the tokenizer, where one is exported."""
        rows = (components.row(self.checkpoint, name) for name in self.precisions)
        return next((row for row in rows if row.tokenizer is not None), None)


def export_bundle(plan: Plan, report: Report = unreported) -> None:
    """Make or extend the bundle at `plan.folder`; each component is in the manifest once it is whole.

    `report` is told each of `plan.stages` when it begins, and the bytes that are written.

    Raises before any work where parts do not fit one another, the folder holds another model's bundle or
    damage that this export does not mend, or another command is using it. An interruption leaves the bundle
    as it was, or valid without the component that was being replaced.
    """
    manifest, family = _empty_manifest(plan.checkpoint), families.family(plan.checkpoint.family)
    for name in plan.precisions:
        components.part(plan.checkpoint, name)
    if plan.scales is not None:
        fp8.read_scales(plan.scales, [])
    new = not plan.folder.exists()
    _make(plan.folder)
    with locks.writing(plan.folder), _nothing_left(plan.folder, new):
        _prepare(plan, manifest)
        _forget_damaged(plan, manifest.facts)
        if plan.tokenizer is not None:
            manifest = _with_tokenizer(plan, manifest)
        for name, precision in plan.precisions.items():
            graph = _component(plan, manifest, name, report)
            if name == family.PREVIEWED:
                fitted = family.preview(plan.checkpoint, report)
                manifest = dataclasses.replace(manifest, preview=fitted)
            add_to_bundle(plan.folder, dataclasses.replace(manifest, components={name: {precision: graph}}))


@contextmanager
def _nothing_left(folder: Path, new: bool) -> Iterator[None]:
    """Remove what an export has made in a new or empty folder, where it ends before that is a bundle."""
    empty = not any(folder.iterdir())
    try:
        yield
    except BaseException:
        if empty and not (folder / MANIFEST).exists():
            (folder / "tokenizer" / "tokenizer.json").unlink(missing_ok=True)
            made = [folder / "tokenizer", folder / "onnx", *([folder] if new else [])]
            for one in made:
                with suppress(OSError):  # it is not there, or holds something else
                    one.rmdir()
        raise


def _empty_manifest(checkpoint: Checkpoint) -> Manifest:
    family = families.family(checkpoint.family)
    manifest = Manifest(
        schema=SCHEMA,
        family=checkpoint.family,
        version=checkpoint.version.name,
        licence=checkpoint.version.licence,
        produced_by={name: package_version(name) or "unknown" for name in PACKAGES},
        source={"checkpoint": checkpoint.source},
        facts=family.facts(checkpoint),
        presets=dict(family.presets(checkpoint)),
        tokenizer=None,
        components={},
    )
    return check_fields(manifest)


def _make(folder: Path) -> None:
    """Make the folder, or make sure that it is one."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{setting('output')} {folder}: is a file; give a folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{setting('output')} {folder}: cannot be made ({error.strerror})") from error
    if not os.access(folder, os.W_OK):
        raise InputError(f"{setting('output')} {folder}: not writable")


def _prepare(plan: Plan, manifest: Manifest) -> None:
    """Make sure that what the folder holds is a bundle of the same model, or nothing; make its folders."""
    folder = plan.folder
    if (folder / MANIFEST).is_file():
        merge(folder, read_manifest(folder), manifest)
    elif any(folder.iterdir()) and not (folder / "onnx").is_dir():
        raise InputError(
            f"{setting('output')} {folder}: not empty and not a bundle; give a new or empty folder"
        )
    try:
        make_folder(folder, "onnx")
        if plan.tokenizer is not None:
            make_folder(folder, "tokenizer")
    except OSError as error:
        raise InputError(f"{setting('output')} {folder}: cannot be written to ({error.strerror})") from error


def _forget_damaged(plan: Plan, facts: Any) -> None:
    """Take what is damaged and about to be replaced out of the manifest; other damage raises BundleError."""
    if not (plan.folder / MANIFEST).is_file():
        return
    old = read_manifest(plan.folder)

    def stays(name: str, precision: str, graph: Graph) -> bool:
        if plan.precisions.get(name) != precision:
            return True
        same = graph.contract == derive(name, facts).to_json()
        return same and all(_is_there(plan.folder, file) for file in graph.files)

    kept = {n: {p: g for p, g in graphs.items() if stays(n, p, g)} for n, graphs in old.components.items()}
    tokenizer = old.tokenizer
    if tokenizer and plan.tokenizer is not None and not _is_there(plan.folder, tokenizer):
        tokenizer = None
    _rewrite(plan.folder, old, kept, tokenizer)


def _is_there(folder: Path, file: FileRecord) -> bool:
    path = inside(folder, file.path)
    return path.is_file() and path.stat().st_size == file.bytes


def _forget(folder: Path, name: str, precision: str) -> None:
    """Take a graph whose files are about to change out of the manifest."""
    if not (folder / MANIFEST).is_file():
        return
    old = read_manifest(folder)
    graphs = {p: g for p, g in old.components.get(name, {}).items() if p != precision}
    _rewrite(folder, old, {**old.components, name: graphs}, old.tokenizer)


def _rewrite(
    folder: Path, old: Manifest, graphs: dict[str, dict[str, Graph]], tokenizer: FileRecord | None
) -> None:
    """The bundle's manifest with these graphs and this tokenizer, checked against the files."""
    left = {name: precisions for name, precisions in graphs.items() if precisions}
    write_bundle(folder, dataclasses.replace(old, components=left, tokenizer=tokenizer))


def _with_tokenizer(plan: Plan, manifest: Manifest) -> Manifest:
    """Write the tokenizer, and record it at once in a bundle that is there: its old record is void."""
    component = plan.tokenizer
    if component is None or component.tokenizer is None:
        raise LtxrtError("a tokenizer is written with its component")
    target = plan.folder / "tokenizer" / "tokenizer.json"
    there = (plan.folder / MANIFEST).is_file()
    with atomic_write(target) as temporary:
        component.tokenizer(plan.checkpoint, temporary)
        if there:
            old = read_manifest(plan.folder)
            _rewrite(plan.folder, old, old.components, None)
    manifest = dataclasses.replace(manifest, tokenizer=record(plan.folder, target))
    if there:
        add_to_bundle(plan.folder, manifest)
    return manifest


def _component(plan: Plan, manifest: Manifest, name: str, report: Report) -> Graph:
    """Trace and write one component; its files appear under their final names only when they are whole."""
    precision = plan.precisions[name]
    component, config = components.row(plan.checkpoint, name), components.part(plan.checkpoint, name).config
    form = component.form(precision)
    contract = derive(name, manifest.facts)
    report(Progress(stage(name, precision, TRACING)))
    sizes = families.family(plan.checkpoint.family).TRACE_SIZES
    base = BASE.get(precision, precision)
    build = functools.partial(component.module, form.config(config))
    traced = trace(build, contract, base, sizes)
    if precision in BASE:
        traced = _quantised(plan, component, traced, config, base)

    target = plan.folder / "onnx" / f"{name}.{precision}.onnx"
    data = target.with_suffix(".onnx.data")
    weights_json = target.with_suffix(".weights.json")
    writing = stage(name, precision, WRITING)
    report(Progress(writing, unit="byte"))
    weights = components.weights(plan.checkpoint, name)
    with atomic_write(data) as temporary:
        constants = component.constants(config)
        scales = form.scales(config)
        written = stream(
            traced, weights, constants, temporary, data.name, scales,
            lambda done, total: report(Progress(writing, done, total, "byte")),
        )  # fmt: skip
        # Up to here an interruption costs nothing: a graph that is replaced is still whole and recorded.
        _forget(plan.folder, name, precision)
    with removed_on_failure(target, data, weights_json):
        with atomic_write(weights_json) as temporary:
            temporary.write_text(weights_map(traced, weights, scales), encoding="utf-8")
        with atomic_write(target) as temporary:
            ir.save(traced.model, temporary)
            report(Progress(stage(name, precision, CHECKING)))
            onnx.checker.check_model(str(temporary))
            _check_readable(temporary, contract, precision, {data: written.bytes})
            report(Progress(stage(name, precision, CHECKING), 1, 1))
    relative = data.relative_to(plan.folder).as_posix()
    return Graph(
        file=record(plan.folder, target),
        data=(FileRecord(relative, written.bytes, written.sha256),),
        weights_map=record(plan.folder, weights_json),
        contract=contract.to_json(),
        memory=_memory(traced.model) if contract.tiles else None,
    )


def _check_readable(graph: Path, contract: Contract, precision: str, data: Mapping[Path, int]) -> None:
    """The runtime refuses what is not in its table: a graph that is must not be recorded."""
    try:
        check_file(graph, contract, data)
    except WireError as error:
        raise LtxrtError(
            f"{contract.component} {precision}: the runtime would refuse the graph that was made ({error}); "
            "install torch, onnx and onnxscript as in constraints.txt"
        ) from error


def _quantised(plan: Plan, component: components.Component, traced: Traced, config: Any, base: str) -> Traced:
    """The traced network with its middle blocks' projections in FP8; its config has layers and head_size."""
    layout, graph = component.fp8, traced.model.graph
    if layout is None:
        raise InputError(f"{setting('precision')} fp8: the {component.part} is not quantised to FP8")
    wanted = fp8.projections(layout, graph.initializers, config.layers)
    attentions = fp8.attention_inputs(layout, graph, config.layers) if plan.fp8_attention else {}
    if plan.scales is None:
        scales = fp8.uncalibrated([*wanted, *attentions])
    else:
        scales = fp8.read_scales(plan.scales, [*wanted, *attentions])
    factors = {name: fp8.unscaled(name, node, config.head_size) for name, (node, _) in attentions.items()}
    scales = fp8.Scales({name: amax / factors.get(name, 1.0) for name, amax in scales.amax.items()})
    found = fp8.insert(traced.model, scales, IR_DTYPES[PRECISIONS[base]], attentions)
    if set(found) != set(wanted):
        raise LtxrtError(f"{len(wanted) - len(found)} projections were not found in the graph")
    return dataclasses.replace(traced, quantised=found)


def _memory(model: ir.Model) -> Memory:
    bounds = per_cell(model)
    return Memory(bounds.fixed_bytes, bounds.bytes_per_cell, bounds.elements_per_cell)
