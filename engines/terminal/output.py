"""Results and warnings of a command, as text or, with `--json`, as JSON lines on stdout."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import click

from ltxrt.engines.cli_base import said, say
from ltxrt.engines.terminal.mode import Mode, choose, emit, mode


def mode_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator that gives a command `--quiet` and `--json`; they are not passed to the function."""
    for flag, chosen, text in (
        ("--json", Mode.JSON, "Print progress, warnings and the result as JSON lines."),
        ("--quiet", Mode.QUIET, "Show no progress."),
    ):
        command = click.option(
            flag,
            is_flag=True,
            is_eager=True,
            expose_value=False,
            help=text,
            callback=_chooser(chosen),
        )(command)
    return command


def _chooser(chosen: Mode) -> Callable[[click.Context, click.Parameter, bool], None]:
    def callback(ctx: click.Context, _parameter: click.Parameter, given: bool) -> None:
        if given:
            choose(ctx, chosen)

    return callback


def result(text: str, data: Mapping[str, Any]) -> None:
    """Print a command's result: `text` for people, `data` with `--json`."""
    if mode() is Mode.JSON:
        emit("result", **data)
    else:
        say(text)


def note(text: str) -> None:
    """Print a finding of a long command as soon as it is made; not with `--quiet`, an event with `--json`."""
    if mode() is Mode.JSON:
        emit("note", message=said(text))
    elif mode() is Mode.NORMAL:
        say(text, err=True)


def warn(text: str) -> None:
    """Print a warning or a note, which says what to do; called before the work that it is about."""
    if mode() is Mode.JSON:
        emit("warning", message=said(text))
    else:
        say(text, err=True)
