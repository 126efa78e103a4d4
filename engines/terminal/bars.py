"""Progress as bars on a terminal, drawn by rich, which is imported when work begins and not before."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ltxrt.engines.cli_base import drawing
from ltxrt.engines.description import clock, duration
from ltxrt.engines.parsing.text import printable
from ltxrt.engines.progress import PART, Progress
from ltxrt.engines.terminal.estimate import Estimate, Stage
from ltxrt.engines.terminal.interrupts import deferred
from ltxrt.engines.terminal.views import amount, pace

REFRESHES = 6  # per second
BARS = 3  # stages shown at once
WIDTH, NARROW = 24, 10  # columns of a bar, and on a terminal of less than NARROW_BELOW
NARROW_BELOW = 80


class _Console(Console):
    def show_cursor(self, show: bool = True) -> bool:
        """Never hidden: nobody would show it again after a SIGKILL."""
        return False


class Bars:
    """A line for each running stage, and below them one for the whole job; ended stages scroll away above."""

    def __init__(self, title: str) -> None:
        self._title, self._started = title, time.monotonic()
        self._console = _Console(file=sys.stderr, highlight=False, markup=False, emoji=False)
        # Everything that is written, because a print and a refresh in two threads may change places in rich.
        self._lock = threading.RLock()
        self._live: Live | None = None
        self._stopping, self._closed = False, threading.Event()
        self._held = contextlib.ExitStack()

    def open(self, estimate: Estimate) -> None:
        self._estimate = estimate
        self._held.enter_context(drawing(self._paused))
        with self._whole_writes():
            self._start()
        threading.Thread(target=self._refreshed, name="progress", daemon=True).start()

    def update(self, stage: Stage, progress: Progress) -> None:
        """Print the stages that have ended. Numbers are drawn by the refreshing thread, stages at once."""
        changed = stage.running and progress.done == 0
        for one in list(self._estimate.stages.values()):
            if one.ended is not None and not one.shown:
                one.shown = changed = True
                if PART in one.name:
                    continue  # of one of many alike, whose result is a line of its own
                self._print(f"{printable(one.name)}  {duration(one.ended - (one.began or one.ended))}", "dim")
        if (
            changed
        ):  # one that begins is shown before its first call holds the interpreter, no bar of an old one
            self._refresh()

    def stopping(self) -> None:
        self._stopping = True
        self._print("stopping…", "bold")

    def close(self) -> None:
        self._closed.set()
        with self._whole_writes():
            self._stop()
            self._held.close()

    @contextmanager
    def _paused(self) -> Iterator[None]:
        """Around what others print: the bars are taken away and drawn again below it."""
        with self._whole_writes():
            running = self._live is not None
            self._stop()
            try:
                yield
            finally:
                if running:
                    self._start()

    @contextmanager
    def _whole_writes(self) -> Iterator[None]:
        """Nobody else writes, and no interruption leaves rich half-way: it would write nothing any more."""
        with deferred(), self._lock:
            yield

    def _start(self) -> None:
        self._live = Live(
            console=self._console,
            get_renderable=self._drawn,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
        )
        self._live.start(refresh=True)

    def _stop(self) -> None:
        live, self._live = self._live, None
        if live is not None:
            live.stop()

    def _refreshed(self) -> None:
        with contextlib.suppress(OSError, ValueError):  # the terminal has gone
            while not self._closed.wait(1 / REFRESHES):
                self._refresh()

    def _refresh(self) -> None:
        with self._whole_writes():
            if self._live is not None:
                self._live.refresh()

    def _print(self, line: str, style: str) -> None:
        with self._whole_writes():
            self._console.print(Text(line, style=style, overflow="ellipsis", no_wrap=True))

    def _drawn(self) -> RenderableType:
        now, estimate = time.monotonic(), self._estimate
        rows = Table.grid(padding=(0, 2, 0, 0))
        speed = estimate.speed(now)
        for stage in estimate.running()[-BARS:]:
            numbers = "  ".join(filter(None, (amount(stage), pace(stage))))
            elapsed = clock(now - (stage.began or now))
            rows.add_row(
                _cell(stage.name), self._bar(stage.fraction(now, speed), now), _cell(numbers or elapsed)
            )
        fraction, left = estimate.fraction(now), estimate.left(now)
        if self._stopping:
            said = "stopping…"
        elif fraction is None or left is None:
            said = clock(now - self._started) if estimate.stages else "starting…"
        else:
            said = f"{100 * fraction:.0f} %  {clock(now - self._started)}, about {clock(left)} left"
        rows.add_row(_cell(self._title, "bold"), self._bar(fraction, now), _cell(said))
        return rows

    def _bar(self, fraction: float | None, now: float) -> ProgressBar:
        width = WIDTH if self._console.width >= NARROW_BELOW else NARROW
        done, unknown = fraction or 0.0, fraction is None
        return ProgressBar(total=1.0, completed=done, width=width, pulse=unknown, animation_time=now)


def _cell(text: str, style: str = "") -> Text:
    return Text(printable(text), style=style, overflow="ellipsis", no_wrap=True)
