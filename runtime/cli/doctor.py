"""`ltx-run doctor`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

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

    place = bundle or _before_doctor(context)
    found = examine(place)
    end = conclude(found)
    default = _default_video(place) if place is not None and end.ok else None
    data = {"verdict": dataclasses.asdict(end), "default_video": default and default.to_json()}
    also = [] if default is None else [_memory(default)]
    result("\n".join(lines(found, also)), {**dataclasses.asdict(found), **data})
    if not end.ok:
        raise click.exceptions.Exit(1)


def _default_video(bundle: Path) -> Any:
    """The explanation of a video of the bundle's default preset; None where it cannot be planned."""
    from ltxrt.engines.bundle import read_bundle
    from ltxrt.engines.errors import LtxrtError
    from ltxrt.runtime.families import family
    from ltxrt.runtime.request.request import Request

    opened = read_bundle(bundle)
    model = family(opened.family)
    try:
        with model.Pipeline(opened) as pipeline:
            return model.explain(pipeline.plan(Request("waves")), pipeline.engines)
    except LtxrtError:
        return None  # what it lacks is in the report


def _memory(found: Any) -> str:
    from ltxrt.engines.description import memory_size

    video, takes = found.plan.settings.video, memory_size(found.peak)
    takes = f"Its default video, {video}, takes about {takes} of {found.where}"
    if found.available is None:
        return f"{takes}."
    fits = "" if found.fits else "; --explain shows what takes it, for smaller sizes too"
    return f"{takes}, of which {memory_size(found.available)} are available{fits}."


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
