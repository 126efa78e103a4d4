"""`ltx-run doctor`."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click
from click.core import ParameterSource

from ltxrt.engines.cli_base import ltxrt_command
from ltxrt.engines.terminal import mode_options, result

PATH = click.Path(path_type=Path)


@ltxrt_command("doctor", short_help="Say what can run here, and the command to run next.")
@click.option("--bundle", type=PATH, metavar="DIR", help="Examine this bundle too.")
@mode_options
@click.pass_context
def doctor_command(context: click.Context, /, bundle: Path | None) -> None:
    """Say what this machine and a bundle can do together, and the command to run next.

    Exit status 1 if no video can be made.
    """
    from ltxrt.engines.machine import conclude, examine, lines

    found = examine(bundle or _before_doctor(context))
    end = conclude(found)
    result("\n".join(lines(found)), {**dataclasses.asdict(found), "verdict": dataclasses.asdict(end)})
    if not end.ok:
        raise click.exceptions.Exit(1)


def _before_doctor(context: click.Context) -> Path | None:
    """The --bundle given before the subcommand's name; other options there are refused."""
    above = context.parent
    if above is None:
        return None
    for option in above.command.params:
        source = above.get_parameter_source(option.name or "")
        if option.name not in ("bundle", "debug", "json", "quiet") and source is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"{option.opts[0]}: doctor has no use for it; leave it out")
    found: Path | None = above.params.get("bundle")
    return found
