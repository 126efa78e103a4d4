"""YAML of plain values, read from a file that somebody else wrote: no surprises, nothing that grows.

Refused are tags, anchors, keys given twice and numbers that are not what they look like. Knows nothing of
what the values mean.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ltxrt.engines.errors import InputError
from ltxrt.runtime.request.kinds import shown

SIZE_LIMIT = 2**20  # bytes; official files have less than two thousand
DEPTH_LIMIT = 8  # of nested blocks and lists; official files have up to 4
EVENT_LIMIT = 10_000  # names, values, ends of blocks and lists; a MiB of them would take half a minute


def load(path: Path) -> dict[Any, object]:
    """The file's top level. Raises InputError that names the file and the line."""
    import yaml  # type: ignore[import-untyped]

    text = _read_text(path)
    try:
        _check_events(yaml.parse(text, Loader=yaml.SafeLoader), path)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        _check_node(node, path)
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" at line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or getattr(error, "reason", "unreadable")
        raise InputError(f"{path} is not valid YAML{line}: {problem}") from error
    if not isinstance(data, dict) or not data:
        given = f"holds {shown(data)}" if data else "is empty"
        raise InputError(f"{path} {given}; it must hold lines such as 'steps: 20'")
    return data


def _read_text(path: Path) -> str:
    try:
        if not path.is_file():
            raise InputError(f"settings file {path} is not there or not a regular file; give a YAML file")
        with path.open("rb") as file:
            data = file.read(SIZE_LIMIT + 1)
    except OSError as error:
        raise InputError(f"settings file {path} cannot be read: {error.strerror}") from error
    if len(data) > SIZE_LIMIT:
        raise InputError(f"{path} has more than {SIZE_LIMIT} bytes; that is no settings file")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text at byte {error.start}; save it as UTF-8") from error


def _check_events(events: Iterable[Any], path: Path) -> None:
    """Refuse, while nothing is built yet, what can grow without bounds or is no plain value."""
    depth = 0
    for count, event in enumerate(events):
        kind = type(event).__name__
        depth += kind in ("MappingStartEvent", "SequenceStartEvent")
        depth -= kind in ("MappingEndEvent", "SequenceEndEvent")
        problem = ""
        if getattr(event, "anchor", None) is not None:
            problem = "anchors and aliases (& and *) are not read; repeat the value"
        elif getattr(event, "tag", None) is not None:
            problem = f"tag {event.tag!r:.60} is not read; give the plain value"
        elif depth > DEPTH_LIMIT or count > EVENT_LIMIT:
            problem = (
                f"nested deeper than {DEPTH_LIMIT}, or over {EVENT_LIMIT} values; that is no settings file"
            )
        if problem:
            raise InputError(f"{path}, line {event.start_mark.line + 1}: {problem}")


def _check_node(node: Any, path: Path) -> None:
    """Refuse keys given twice, of which YAML takes the last, and numbers that are not what they look like."""
    kind = type(node).__name__
    if kind == "MappingNode":
        _check_keys([key for key, _ in node.value], path)
        for pair in node.value:
            _check_scalar(pair[0], path)
            _check_node(pair[1], path)
    elif kind == "SequenceNode":
        for value in node.value:
            _check_node(value, path)
    elif node is not None:
        _check_scalar(node, path)


def _check_keys(keys: list[Any], path: Path) -> None:
    seen: set[str] = set()
    for key in keys:
        line = key.start_mark.line + 1
        if type(key).__name__ != "ScalarNode" or key.tag.endswith((":merge", ":value", ":timestamp")):
            raise InputError(f"{path}, line {line}: a key must be the name of a setting, as in 'steps: 20'")
        if key.value in seen:
            raise InputError(f"{path}, line {line}: {key.value!r:.60} is given twice; give it once")
        seen.add(key.value)


def _check_scalar(node: Any, path: Path) -> None:
    """YAML reads 0100 as 64, 1:30 as 90, dates as dates; Python reads no thousands of digits."""
    line, tag = node.start_mark.line + 1, node.tag.rpartition(":")[2]
    odd_number = tag in ("int", "float") and re.search(r"[_:xb]|^[-+]?0\d", node.value)
    if odd_number or tag == "timestamp" or (tag == "int" and len(node.value) > 4000):
        raise InputError(
            f"{path}, line {line}: {node.value:.60} is not a plain decimal number; "
            "write digits with at most one dot, or quotes around text"
        )
