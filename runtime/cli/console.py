"""Progress of a run on stderr."""

from __future__ import annotations

import sys
import time

import click

from ltxrt.engines.cli_base import check_interrupted
from ltxrt.runtime.ltxv import Event


class Console:
    """Shows events on stderr: a line per stage, and for the steps one line that is written over."""

    def __init__(self) -> None:
        self.started = self.previous = time.monotonic()
        self.stage = ""

    def __call__(self, event: Event) -> None:
        check_interrupted()
        if event.step is None:
            self.finish()
            self.stage = event.stage
            self.started = self.previous = time.monotonic()
            return
        done = event.step.index + 1
        each = time.monotonic() - self.previous  # the first one's includes loading
        self.previous += each
        left = each * (event.total - done)
        line = f"step {done}/{event.total}  {each:.2f} s/step  {left:.0f} s left"
        if sys.stderr.isatty():
            click.echo(f"\r{line}\033[K", err=True, nl=done == event.total)
        else:
            click.echo(line, err=True)

    def finish(self) -> None:
        """The stage that ran last is over."""
        if self.stage:
            click.echo(f"{self.stage}: {time.monotonic() - self.started:.1f} s", err=True)
