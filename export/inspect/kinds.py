"""Which kind of file something is, and who explains it: by what is in it, not by its name."""

from __future__ import annotations

import importlib
import tempfile
from pathlib import Path
from typing import Any

from ltxrt.engines.bundle import MANIFEST
from ltxrt.engines.description import Description
from ltxrt.engines.errors import InputError
from ltxrt.engines.parsing import json_input
from ltxrt.engines.parsing.text import clipped
from ltxrt.engines.progress import Progress, Report, unreported
from ltxrt.export import families
from ltxrt.export.inspect.checkpoint import explain_checkpoint

# Explains what `ltx-run` takes and makes. Loaded by its name: nothing else here knows of the runtime.
_RUNTIME = "ltxrt.runtime.inspect"
_SCALES_LIMIT = 64 << 20  # bytes
_FIELDS, _SHOWN = 32, 400  # fields of a file of scales that are shown, and characters of one


def explain(name: str, report: Report = unreported) -> Description:
    """What the file, folder or name on the hub is. Raises InputError for what no command takes."""
    from ltxrt.export.hub.reference import parse

    reference = parse(name)
    if reference is not None:
        return _on_hub(name, report)
    path = Path(name)
    if not path.exists():
        raise InputError(f"{name}: no such file or folder")
    return _in_a_bundle(path) or _scales(path) or _runtime(path) or _part(path) or explain_checkpoint(path)


def _in_a_bundle(path: Path) -> Description | None:
    from ltxrt.export.inspect.bundle import explain_bundle, explain_inside

    if path.is_dir():
        return explain_bundle(path) if (path / MANIFEST).is_file() else None
    return explain_bundle(path.parent) if path.name == MANIFEST else explain_inside(path)


def _part(path: Path) -> Description | None:
    """What is given beside a checkpoint, or made for one."""
    for name in families.FAMILIES:
        found = families.family(name).describe_part(path)
        if found is not None:
            return found
    return None


def _runtime(path: Path) -> Description | None:
    found: Description | None = importlib.import_module(_RUNTIME).explain(path)
    return found


def _scales(path: Path) -> Description | None:
    """A file that `ltx-parity calibrate` made."""
    if path.suffix.lower() != ".json" or not path.is_file():
        return None
    try:
        data: Any = json_input.read(path, _SCALES_LIMIT)
    except (OSError, ValueError):
        return None
    if not isinstance(data, dict) or not isinstance(data.get("amax"), dict):
        return None
    amax = data["amax"]
    known = {
        clipped(key, _SHOWN): clipped(value, _SHOWN) if isinstance(value, str) else value
        for key, value in list(data.items())[:_FIELDS]
        if isinstance(value, str | int | float)
    }
    lines = [f"{path}: scales for FP8, of {len(amax)} activations; ltx-export onnx takes them with --scales"]
    lines += [f"  {key}: {value}" for key, value in known.items()]
    return Description("scales", tuple(lines), {"activations": len(amax), **known})


def _on_hub(name: str, report: Report) -> Description:
    """A checkpoint of the hub, with what would be downloaded with it; its headers travel, no weights."""
    from ltxrt.export.hub import repository as hub
    from ltxrt.export.hub import selection
    from ltxrt.export.hub.locating import announced, companions, pick
    from ltxrt.export.hub.reference import Reference, parse

    reference = parse(name) or Reference(name)
    report(Progress(f"asking the hub about {reference.repo}"))
    repository = hub.open_repository(reference)
    chosen = selection.checkpoint(repository, reference.path, report)
    with tempfile.TemporaryDirectory(prefix="ltxrt-") as folder:
        path = hub.header_only(repository, chosen.files, Path(folder), report) / chosen.opened
        part = _part(path)
        if part is not None:
            return part
        found = explain_checkpoint(path, compare=False)
        opened = families.of(path).open_checkpoint(path, {}, None, False)
        added = companions(opened, (), {})
    others = [
        pick(source, other, repository, report)
        for source, texts in added.items()
        for text in texts
        if (other := parse(text)) is not None
    ]
    everything = [chosen, *others]
    files = [
        {
            "repository": one.repository.reference.repo,
            "commit": one.repository.commit,
            "files": list(one.files),
            "bytes": one.bytes,
            "missing": one.missing,
        }
        for one in everything
    ]
    lines = (*found.lines, "ltx-export onnx takes:", *announced(everything))
    return Description(found.kind, lines, {**found.data, "downloads": files})
