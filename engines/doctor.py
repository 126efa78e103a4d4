"""What this machine can run: packages, processors, a bundle's engines; commands for what is missing.

Every registered backend is asked (`ltxrt.engines.backend`).
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from pathlib import Path

from ltxrt.engines import backend
from ltxrt.engines.bundle import Bundle, read_bundle
from ltxrt.engines.errors import LtxrtError
from ltxrt.engines.host import package_version


def report(bundle: Path | None) -> Iterator[str]:
    """Lines of text, one for each item that was checked."""
    yield f"python {platform.python_version()}, ltxrt {package_version('ltxrt') or 'not installed'}"
    packages = {p.distribution: p for name in backend.BACKENDS for p in backend.packages(name)}
    for name, package in packages.items():
        found = package_version(name)
        missing = f"{name} missing ({package.purpose}): pip install 'ltxrt[{package.extra}]'"
        yield f"{name} {found}" if found else missing
    for name in backend.BACKENDS:
        yield f"{name}: {_state(name)}"
    if bundle is not None:
        yield from _bundle(bundle)


def _state(name: str) -> str:
    try:
        return backend.available(name)
    except LtxrtError as error:
        return f"not usable here: {error}"


def _bundle(path: Path) -> Iterator[str]:
    opened = read_bundle(path)
    graphs = ", ".join(f"{name} ({', '.join(g)})" for name, g in opened.components.items())
    yield f"{path}: {opened.model.title} {opened.version}; graphs: {graphs}"
    yield from _engines(opened)


def _engines(bundle: Bundle) -> Iterator[str]:
    lines = [line for describe in backend.descriptions() for line in describe(bundle)]
    yield from lines or [
        f"no engines: ltx-export build-engines --bundle … --profile {bundle.model.profile.examples[0]}"
    ]
