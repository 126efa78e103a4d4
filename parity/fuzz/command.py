"""The command: damaged input to every reader; exit status 1 where one was unhandled."""

from __future__ import annotations

import signal
import sys
import time

import click

from ltxrt.engines.cli_base import ltxrt_command
from ltxrt.engines.errors import LtxrtError
from ltxrt.parity.fuzz.runner import run
from ltxrt.parity.fuzz.targets import TARGETS


@ltxrt_command()
@click.option(
    "--inputs", type=click.IntRange(1, 10**8), default=100_000, show_default=True, help="Per target."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option(
    "--first",
    type=click.IntRange(0),
    default=0,
    help="Number of the first input; with --inputs 1 that one alone.",
)
@click.argument("targets", nargs=-1, type=click.Choice(list(TARGETS)))
def main(inputs: int, seed: int, first: int, targets: tuple[str, ...]) -> None:
    """Give damaged input to readers; count what was accepted, refused with an ltxrt error, or unhandled."""
    if not hasattr(signal, "setitimer"):
        raise LtxrtError("this system cannot limit the processor time of an input; run it on Linux")
    click.echo("| target | inputs | accepted | refused | unhandled | minutes |\n|---|--:|--:|--:|--:|--:|")
    unhandled = 0
    for name in targets or TARGETS:
        start = time.monotonic()
        counts = run(name, TARGETS[name], inputs, seed, first)
        minutes = (time.monotonic() - start) / 60
        click.echo(
            f"| {name} | {counts.inputs} | {counts.accepted} | {counts.refused} | {counts.unhandled} "
            f"| {minutes:.1f} |"
        )
        for line in counts.failures:
            click.echo(f"{name}, seed {seed}, {line}", err=True)
        unhandled += counts.unhandled
    sys.exit(unhandled > 0)
