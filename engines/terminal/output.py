"""Results and warnings of a command, as text or, with `--json`, as JSON lines on stdout."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any

import click

from ltxrt.engines.cli_base import say

_MODE = "ltxrt.mode"


class Mode(Enum):
    """How a command shows what it does."""

    NORMAL = "progress on stderr, results as text"
    QUIET = "results and warnings alone"
    JSON = "one JSON object in a line for each event, on stdout"


def mode_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator that gives a command `--quiet` and `--json`; they are not passed to the function."""
    for flag, mode, text in (
        ("--json", Mode.JSON, "Print progress and the result as JSON lines."),
        ("--quiet", Mode.QUIET, "Show no progress."),
    ):
        command = click.option(
            flag,
            is_flag=True,
            is_eager=True,
            expose_value=False,
            help=text,
            callback=lambda ctx, _parameter, given, mode=mode: _choose(ctx, mode if given else None),
        )(command)
    return command


def _choose(ctx: click.Context, mode: Mode | None) -> None:
    if mode is not None:
        ctx.meta[_MODE] = mode


def mode() -> Mode:
    """The running command's mode."""
    ctx = click.get_current_context(silent=True)
    return Mode.NORMAL if ctx is None else ctx.meta.get(_MODE, Mode.NORMAL)


def emit(event: str, **data: Any) -> None:
    """Print an event as a JSON line; for `--json` alone."""
    click.echo(json.dumps({"event": event, **data}, ensure_ascii=True, default=str))


def result(text: str, data: Mapping[str, Any]) -> None:
    """Print a command's result: `text` for people, `data` with `--json`."""
    if mode() is Mode.JSON:
        emit("result", **data)
    else:
        say(text)


def note(text: str) -> None:
    """Print a finding of a long command as soon as it is made; not with `--quiet`, an event with `--json`."""
    if mode() is Mode.JSON:
        emit("note", message=text)
    elif mode() is Mode.NORMAL:
        say(text, err=True)


def warn(text: str) -> None:
    """Print a warning or a note, which says what to do; called before the work that it is about."""
    if mode() is Mode.JSON:
        emit("warning", message=text)
    else:
        say(text, err=True)
