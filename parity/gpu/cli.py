"""`python -m ltxrt.parity.gpu`: all parts, or those that are named, and a summary.

A part's failure does not stop the next. Exit status 1 where one failed or could not run.
"""

from __future__ import annotations

from pathlib import Path

import click

from ltxrt.engines.cli_base import ltxrt_command
from ltxrt.parity.gpu import parts

PATH = click.Path(path_type=Path, file_okay=False)


@ltxrt_command("gpu")
@click.option(
    "--part", "names", type=click.Choice(tuple(parts.PARTS)), multiple=True, help="Only this; repeatable."
)
@click.option(
    "--output", type=PATH, default=Path("gpu-results"), show_default=True, help="Folder for the results."
)
@click.option("--work", type=PATH, help="Folder for the models.  [default: work/ in --output]")
@click.option(
    "--cpu", is_flag=True, help="Run the same code at tiny sizes on the CPU, to try the command itself."
)
def main(names: tuple[str, ...], output: Path, work: Path | None, cpu: bool) -> None:
    """Run the checks that need an NVIDIA GPU, part by part; see docs/gpu.md.

    Every part writes OUTPUT/PART.json as it goes. Exit status 1 if one failed or could not run.
    """
    place = parts.Place(work if work is not None else output / "work", cpu)
    for folder in (output, place.work):
        folder.mkdir(parents=True, exist_ok=True)
    results = []
    for name in parts.asked(names):
        click.echo(f"{name}: {parts.PARTS[name]}", err=True)
        results.append(parts.run(name, place, output, lambda line: click.echo(f"  {line}", err=True)))
    for result in results:
        click.echo(
            f"{result.part}: {result.status}, {result.seconds:.0f} s"
            + f": {result.problem}" * bool(result.problem)
        )
    if not all(result.succeeded for result in results):
        raise click.exceptions.Exit(1)
