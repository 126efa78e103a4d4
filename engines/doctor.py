"""What this machine can run: packages, driver, GPU, a bundle's engines; and for each gap, a command."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterator, Mapping
from pathlib import Path

from ltxrt.engines.bundle import read_bundle
from ltxrt.engines.errors import LtxrtError
from ltxrt.engines.tensorrt import build as trt
from ltxrt.engines.tensorrt import cache

# Distribution, what it is for, the extra that brings it.
PACKAGES = (
    ("onnxruntime", "runs graphs on the CPU", "cpu"),
    ("onnxruntime-gpu", "runs graphs on NVIDIA GPUs", "cuda"),
    ("tensorrt", "runs engines on NVIDIA GPUs", "tensorrt"),
    ("tensorrt-rtx", "builds engines anywhere, runs them on RTX GPUs", "tensorrt-rtx"),
    ("cuda-bindings", "GPU memory for both TensorRTs", "tensorrt"),
)


def report(bundle: Path | None) -> Iterator[str]:
    """Lines for people, one for each thing that was looked at."""
    yield f"python {platform.python_version()}, ltxrt {_version('ltxrt') or 'not installed'}"
    for name, purpose, extra in PACKAGES:
        found = _version(name)
        yield f"{name} {found}" if found else f"{name} missing ({purpose}): pip install 'ltxrt[{extra}]'"
    yield from _gpu()
    if bundle is not None:
        yield from _bundle(bundle)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _gpu() -> Iterator[str]:
    for backend in trt.FLAVOURS:
        try:
            yield f"{backend}: GPU {trt.gpu_name(backend)}"
        except LtxrtError as error:
            yield f"{backend}: not usable here: {error}"


def _bundle(path: Path) -> Iterator[str]:
    opened = read_bundle(path)
    graphs = ", ".join(f"{name} ({', '.join(g)})" for name, g in opened.components.items())
    yield f"{path}: LTX-Video {opened.version}; graphs: {graphs}"
    installed = trt.installed()
    found = cache.engines(opened, installed)
    for engine in found:
        place = engine.path.relative_to(opened.root)
        yield f"{place}: {engine.problem or _fits(engine, installed)}"
    if not found:
        yield "no engines: ltx-export build-engines --bundle … --profile 512x768x97"


def _fits(engine: cache.Found, installed: Mapping[str, str | None]) -> str:
    """What an engine without a known problem fits: nothing is known of a package that is not there."""
    if engine.record is None:
        return "has no record"
    backend = engine.record.backend
    version = installed.get(backend)
    if version is not None:
        return f"fits the bundle and the installed {backend} {version}"
    wanted = f"fits the bundle; it takes {backend} {engine.record.backend_version}"
    if backend not in trt.FLAVOURS:
        return f"{wanted}, which this ltxrt does not know"
    return f"{wanted}, and no {backend} is installed: pip install 'ltxrt[{trt.FLAVOURS[backend].extra}]'"
