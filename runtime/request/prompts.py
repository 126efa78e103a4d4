"""A file of prompts: a line for each video, which is a prompt or a JSON object of settings."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ltxrt.engines.errors import InputError, LtxrtError, setting
from ltxrt.engines.parsing import json_input
from ltxrt.runtime.request import json_form

MOST_BYTES = 16 << 20
MOST_LINES = 10_000  # with a prompt or settings
STDIN = "-"


@dataclass(frozen=True)
class Line:
    """What a line says: where it stands, for messages, and values of a request's fields."""

    place: str
    values: Mapping[str, Any]

    @contextmanager
    def named(self) -> Iterator[None]:
        """Around the making of its request: errors about what the line says name its place."""
        with _at(self.place, self.values):
            yield


def read(path: Path) -> list[Line]:
    """The lines of the file at `path`, "-" for standard input; empty ones and those that begin with # are
    left out.

    A line that begins with { is a JSON object of settings by their names, in `json_form`. Raises InputError,
    naming file and line.
    """
    lines = []
    for number, text in enumerate(_text(path).split("\n"), 1):
        place = f"{setting('prompts')} {path}, line {number}"
        stripped = text.strip()
        if stripped.startswith("{"):
            lines.append(Line(place, _settings(stripped, place)))
        elif stripped and not stripped.startswith("#"):
            lines.append(Line(place, {"prompt": stripped}))
        if len(lines) > MOST_LINES:
            raise InputError(f"{place}: more than {MOST_LINES} prompts; make them by several commands")
    if not lines:
        raise InputError(f"{setting('prompts')} {path}: has no prompts; write one in each line")
    return lines


def _settings(text: str, place: str) -> dict[str, Any]:
    with _at(place):
        try:
            data = json_input.parse(text)
        except ValueError as error:
            raise InputError(f"no JSON object that is read here ({error})") from error
        return json_form.given(data)


def _text(path: Path) -> str:
    label = f"{setting('prompts')} {path}"
    try:
        if str(path) == STDIN:
            content = sys.stdin.buffer.read(MOST_BYTES + 1)
            if len(content) > MOST_BYTES:
                raise ValueError(f"larger than {MOST_BYTES >> 20} MB")
        else:
            content = json_input.read_bytes(path, MOST_BYTES)
        return content.decode("utf-8-sig")
    except FileNotFoundError as error:
        raise InputError(f"{label}: no such file") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{label}: is no UTF-8 text; save it as UTF-8") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{label}: cannot be read ({error}); give a text file of prompts") from error


@contextmanager
def _at(place: str, own: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Name the place in errors, unless they are about a setting that is not among its `own`."""
    try:
        yield
    except LtxrtError as error:
        if own is None or error.field is None or error.field.split(".")[0] in own:
            message = error.worded(lambda name: name if own is None or name in own else setting(name))
            error.args = (f"{place}: {message}",)
        raise
