"""`ltx-run doctor`."""

from __future__ import annotations

from pathlib import Path

import click
from click.core import ParameterSource

from ltxrt.engines.cli_base import ltxrt_command, say

PATH = click.Path(path_type=Path)


@ltxrt_command("doctor")
@click.option("--bundle", type=PATH, metavar="DIR", help="Report on this bundle's engines too.")
@click.pass_context
def doctor_command(context: click.Context, /, bundle: Path | None) -> None:
    """Report what this machine can run, and how to install what is missing."""
    from ltxrt.engines.doctor import report

    for line in report(bundle or _before_doctor(context)):
        say(line)


def _before_doctor(context: click.Context) -> Path | None:
    """The --bundle given before the subcommand's name; other options there are refused."""
    above = context.parent
    if above is None:
        return None
    for option in above.command.params:
        source = above.get_parameter_source(option.name or "")
        if option.name not in ("bundle", "debug") and source is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"{option.opts[0]}: doctor has no use for it; leave it out")
    found: Path | None = above.params.get("bundle")
    return found
