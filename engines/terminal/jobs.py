"""The progress of a job of several stages, drawn as bars on a terminal and as lines elsewhere."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import click

from ltxrt.engines.cli_base import check_interrupted
from ltxrt.engines.progress import PART, Progress
from ltxrt.engines.terminal.estimate import Estimate
from ltxrt.engines.terminal.interrupts import announced
from ltxrt.engines.terminal.mode import Mode, mode
from ltxrt.engines.terminal.views import Json, Lines, Nothing, View


class Job:
    """A report (`ltxrt.engines.progress.Report`) that shows what it is told, in the command's mode.

    Threads may share one.
    """

    def __init__(self, view: View) -> None:
        self._view, self._lock = view, threading.Lock()
        self._estimate = Estimate(time.monotonic())
        self._key, self._ratios = "", dict[str, float]()
        view.open(self._estimate)

    def expect(self, seconds: Mapping[str, float], key: str = "") -> None:
        """The job's stages in order, with about how long each takes: the weights of percent and time left.

        With `key`, which names all that times depend on but the size of the work (command, model, backend),
        they are corrected by how long stages took under it before on this machine, and those of this job are
        noted when it has succeeded.
        """
        self._key = key
        if key:
            from ltxrt.engines.storage import times

            ratios = times.measured(key)
            self._ratios = {stage: ratios.get(_kind(stage), 1.0) for stage in seconds}
        with self._lock:
            self._estimate.expect({stage: s * self._ratios.get(stage, 1.0) for stage, s in seconds.items()})

    def __call__(self, progress: Progress) -> None:
        check_interrupted()
        with self._lock:
            stage = self._estimate.update(progress, time.monotonic())
            self._view.update(stage, progress)

    def remember(self) -> None:
        """Note how long the stages took, for later jobs under the key."""
        if not self._key:
            return
        from ltxrt.engines.storage import times

        measured = self._estimate.measured().items()
        times.note(self._key, {_kind(s): r * self._ratios.get(s, 1.0) for s, r in measured})


def _kind(stage: str) -> str:
    """A stage in whichever part of a job: times are noted for all of them."""
    return stage.rpartition(PART)[2]


@contextmanager
def job(title: str = "") -> Iterator[Job]:
    """Around the work of a command, which is shown as `title`, by default the command's name.

    Entered before heavy packages are imported, so that something is seen at once.
    """
    view = _view(title)
    with announced(view.stopping):
        try:
            one = Job(view)
            yield one
        finally:
            view.close()
    one.remember()


def _view(title: str) -> View:
    if mode() is Mode.JSON:
        return Json()
    if mode() is Mode.QUIET:
        return Nothing()
    if "IPython" in sys.modules:
        from ltxrt.engines.terminal.notebook import Notebook, display

        if (shown := display()) is not None:
            return Notebook(shown)
    if not sys.stderr.isatty() or os.environ.get("TERM") in ("", "dumb"):
        return Lines()
    from ltxrt.engines.terminal.bars import Bars

    context = click.get_current_context(silent=True)
    return Bars(title or (context.command_path if context else ""))
