"""A checkpoint to a bundle: trace each component, stream its weights, record what was made."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import onnx
import onnx_ir as ir

from ltxrt.engines import contract as contracts
from ltxrt.engines.bundle import (
    FAMILY,
    MANIFEST,
    SCHEMA,
    FileRecord,
    Graph,
    Manifest,
    add_to_bundle,
    merge,
    read_manifest,
    record,
    write_bundle,
)
from ltxrt.engines.errors import InputError, LtxrtError
from ltxrt.engines.files import atomic_write
from ltxrt.export import components
from ltxrt.export.checkpoint import Checkpoint
from ltxrt.export.tokenizer import write_tokenizer_json
from ltxrt.export.trace import trace
from ltxrt.export.weights import stream, weights_map

PACKAGES = ("ltxrt", "torch", "onnx", "onnxscript", "onnx-ir")


class Listener(Protocol):
    """What an export tells whoever watches it."""

    def stage(self, text: str) -> None:
        """A step has begun."""

    def progress(self, done: int, total: int) -> None:
        """Bytes written of the current step."""


@dataclass(frozen=True)
class Plan:
    """Which components to export, each in which precision, from where to where."""

    checkpoint: Checkpoint
    folder: Path
    precisions: Mapping[str, str]  # component → precision


def export_bundle(plan: Plan, listener: Listener) -> None:
    """Make or extend the bundle at `plan.folder`; each component is in the manifest once it is whole.

    Raises before any work where a precision is refused, parts do not fit one another, or the folder holds
    another model's bundle.
    """
    manifest = _empty_manifest(plan.checkpoint)
    for name, precision in plan.precisions.items():
        components.part(plan.checkpoint, name)
        components.check_precision(name, precision)
    _prepare(plan.folder, manifest)
    if plan.checkpoint.tokenizer is not None and "text_encoder" in plan.precisions:
        manifest = dataclasses.replace(manifest, tokenizer=_tokenizer(plan))
    for name, precision in plan.precisions.items():
        _forget(plan.folder, name, precision)
        graph = _component(plan, manifest, name, listener)
        add_to_bundle(plan.folder, dataclasses.replace(manifest, components={name: {precision: graph}}))


def _empty_manifest(checkpoint: Checkpoint) -> Manifest:
    return Manifest(
        schema=SCHEMA,
        family=FAMILY,
        version=checkpoint.version.name,
        licence=checkpoint.version.licence,
        produced_by={name: importlib.metadata.version(name) for name in PACKAGES},
        source={"checkpoint": checkpoint.source},
        facts=components.facts(checkpoint),
        presets={"default": checkpoint.version.preset},
        tokenizer=None,
        components={},
    )


def _prepare(folder: Path, manifest: Manifest) -> None:
    """Make the folder, or make sure that what it holds is a bundle of the same model."""
    if (folder / MANIFEST).is_file():
        merge(folder, read_manifest(folder), manifest)
    elif folder.is_dir() and any(folder.iterdir()) and not (folder / "onnx").is_dir():
        raise InputError(f"--output {folder}: not empty and not a bundle; give a new or empty folder")
    elif folder.exists() and not folder.is_dir():
        raise InputError(f"--output {folder}: is a file; give a folder")
    try:
        (folder / "onnx").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--output {folder}: cannot be made ({error.strerror})") from error
    if not os.access(folder, os.W_OK):
        raise InputError(f"--output {folder}: not writable")


def _forget(folder: Path, name: str, precision: str) -> None:
    """Take a graph that is about to be replaced out of the manifest, where an interruption would leave it."""
    if not (folder / MANIFEST).is_file():
        return
    old = read_manifest(folder)
    if precision not in old.components.get(name, {}):
        return
    kept = {p: g for p, g in old.components[name].items() if p != precision}
    others = {n: g for n, g in old.components.items() if n != name}
    if kept:
        others[name] = kept
    write_bundle(folder, dataclasses.replace(old, components=others))


def _tokenizer(plan: Plan) -> FileRecord:
    target = plan.folder / "tokenizer" / "tokenizer.json"
    target.parent.mkdir(exist_ok=True)
    if plan.checkpoint.tokenizer is None:
        raise LtxrtError("no tokenizer to write")
    with atomic_write(target) as temporary:
        write_tokenizer_json(plan.checkpoint.tokenizer, temporary)
    return record(plan.folder, target)


def _component(plan: Plan, manifest: Manifest, name: str, listener: Listener) -> Graph:
    """Trace and write one component; its files appear under their final names only when they are whole."""
    precision = plan.precisions[name]
    component, config = components.COMPONENTS[name], components.part(plan.checkpoint, name).config
    contract = contracts.derive(name, manifest.facts)
    listener.stage(f"{name} {precision}: tracing")
    traced = trace(lambda: component.module(config), contract, precision)

    target = plan.folder / "onnx" / f"{name}.{precision}.onnx"
    data = target.with_suffix(".onnx.data")
    weights_json = target.with_suffix(".weights.json")
    listener.stage(f"{name} {precision}: writing weights")
    weights = components.weights(plan.checkpoint, name)
    with _discarded_on_failure(target, data, weights_json):
        with atomic_write(data) as temporary:
            constants = component.constants(config)
            written = stream(traced, weights, constants, temporary, data.name, listener.progress)
        weights_json.write_text(weights_map(traced, weights), encoding="utf-8")
        with atomic_write(target) as temporary:
            ir.save(traced.model, temporary)
            listener.stage(f"{name} {precision}: checking")
            onnx.checker.check_model(str(temporary))
    relative = data.relative_to(plan.folder).as_posix()
    return Graph(
        file=record(plan.folder, target),
        data=(FileRecord(relative, written.bytes, written.sha256),),
        weights_map=record(plan.folder, weights_json),
        contract=contract.to_json(),
    )


@contextmanager
def _discarded_on_failure(*paths: Path) -> Iterator[None]:
    """Remove the component's other files when one of them cannot be finished."""
    try:
        yield
    except BaseException:
        for path in paths:
            path.unlink(missing_ok=True)
        raise
