"""Descriptions of a bundle and of the files in one: graphs, weights, engines."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from ltxrt.engines import verification
from ltxrt.engines.bundle import MANIFEST, Bundle, read_bundle
from ltxrt.engines.description import Description, file_size
from ltxrt.engines.tensorrt import build, cache
from ltxrt.engines.tensorrt import inspect as inspection
from ltxrt.engines.tensorrt.cache import Found


def explain_bundle(folder: Path) -> Description:
    """Version, components with their precisions and sizes, presets, engines, state of verification."""
    bundle = read_bundle(folder)
    model = bundle.model
    total = sum(record.bytes for record in bundle.files())
    engines = cache.engines(bundle, build.installed())
    lines = [f"{folder}: bundle of {model.title} {bundle.version}, {file_size(total)}"]
    weights = {
        name: {precision: sum(file.bytes for file in graph.files) for precision, graph in graphs.items()}
        for name, graphs in bundle.components.items()
    }
    for name, sizes in weights.items():
        lines.append(
            f"  {name}: {', '.join(f'{precision} {file_size(n)}' for precision, n in sizes.items())}"
        )
    missing = [name for name in model.components if name not in bundle.components]
    if missing:
        lines.append(f"  not in it: {', '.join(missing)}")
    presets = {
        name: len(preset.passes) for name, preset in bundle.presets.items() if hasattr(preset, "passes")
    }
    for name, passes in presets.items():
        preset = bundle.presets[name]
        lines.append(
            f"preset {name}: {preset.width}x{preset.height}, {preset.num_frames} frames, "
            f"{passes} pass{'es' if passes > 1 else ''}"
        )
    lines += _engine_lines(engines)
    passed = sorted(verification.read(bundle).passed)
    by_backend = Counter(backend for _, _, backend in passed)
    verified = ", ".join(f"{n} graphs on {backend}" for backend, n in by_backend.items())
    lines.append(f"verified against torch: {verified or 'nothing yet; ltx-parity check does it'}")
    colours = bundle.preview
    lines.append(
        f"previews: {'none; export the decoder again' if colours is None else f'R² {colours.r2:.3g}'}"
    )
    source = ", ".join(bundle.source.values())
    lines += [f"made from {source}", f"licence: {bundle.licence}"]
    data = {
        "family": bundle.family,
        "version": bundle.version,
        "licence": bundle.licence,
        "source": dict(bundle.source),
        "produced_by": dict(bundle.produced_by),
        "components": weights,
        "presets": list(bundle.presets),
        "engines": [str(one.path.relative_to(bundle.root)) for one in engines],
        "preview_r2": None if colours is None else colours.r2,
        "verified": [list(check) for check in passed],
    }
    return Description("bundle", tuple(lines), data)


def _engine_lines(engines: list[Found]) -> list[str]:
    counts = Counter((one.path.parent.parent.name, one.path.parent.name) for one in engines)
    lines = [f"engines: {n} for {target} ({backend})" for (backend, target), n in counts.items()]
    bad = sum(1 for one in engines if one.problem)
    return [*lines, *([f"  {bad} of them not usable here; ltx-export engines list says why"] if bad else [])]


def explain_inside(path: Path) -> Description | None:
    """A file of a bundle: an engine, a graph, weights; None for one outside of any."""
    root = next((folder for folder in path.absolute().parents if (folder / MANIFEST).is_file()), None)
    if root is None:
        return None
    bundle, name = read_bundle(root), path.absolute().relative_to(root).as_posix()
    engine = _engine(bundle, path)
    if engine is not None:
        return engine
    for component, graphs in bundle.components.items():
        for precision, graph in graphs.items():
            if name in {file.path for file in graph.files}:
                what = (
                    "graph" if name == graph.file.path else "weights" if name.endswith(".data") else "names"
                )
                tensors = bundle.contract(component)
                given = ", ".join(map(str, tensors.inputs))
                made = ", ".join(map(str, tensors.outputs))
                lines = (
                    f"{path}: {what} of {component} {precision}, in the bundle {root}",
                    f"  in: {given}",
                    f"  out: {made}",
                )
                return Description("graph", lines, {"component": component, "precision": precision})
    return None


def _engine(bundle: Bundle, path: Path) -> Description | None:
    wanted = path.absolute().with_suffix(".engine")
    for found in cache.engines(bundle, build.installed()):
        if found.path.absolute() != wanted:
            continue
        record = found.record
        if record is None:
            return Description("engine", (f"{path}: engine; not usable: {found.problem}",), {})
        lines = [
            f"{path}: engine of {record.component} {record.precision} for {record.target}",
            f"  {file_size(record.bytes)}, built by {record.backend} {record.backend_version}",
            *(f"  {line}" for line in inspection.describe(bundle, found)),
            f"  not usable here: {found.problem}" if found.problem else "  usable here",
        ]
        data = {
            "component": record.component,
            "precision": record.precision,
            "backend": record.backend,
            "version": record.backend_version,
            "target": record.target,
            "bytes": record.bytes,
            "problem": found.problem,
        }
        return Description("engine", tuple(lines), data)
    return None
