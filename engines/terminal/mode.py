"""How the running command shows what it does; JSON lines. click alone."""

from __future__ import annotations

from enum import Enum
from typing import Any

import click

_MODE = "ltxrt.mode"


class Mode(Enum):
    """How a command shows what it does."""

    NORMAL = "progress on stderr, results as text"
    QUIET = "results and warnings alone"
    JSON = "one JSON object in a line for each event, on stdout"


def choose(ctx: click.Context, chosen: Mode) -> None:
    """Set the mode of the command and its subcommands; JSON wins over QUIET."""
    if ctx.meta.get(_MODE) is not Mode.JSON:
        ctx.meta[_MODE] = chosen


def mode(ctx: click.Context | None = None) -> Mode:
    """The mode of the command, by default of the running one."""
    ctx = ctx or click.get_current_context(silent=True)
    return Mode.NORMAL if ctx is None else ctx.meta.get(_MODE, Mode.NORMAL)


def emit(event: str, **data: Any) -> None:
    """Print an event as a JSON line; for `--json` alone."""
    import json  # where it is needed: --help is instant

    click.echo(json.dumps({"event": event, **data}, ensure_ascii=True, default=str))
