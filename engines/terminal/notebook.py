"""Progress in a notebook: a bar in the cell's output, which is replaced as the job goes on."""

from __future__ import annotations

import sys
import time
from html import escape
from typing import Any

from ltxrt.engines.description import clock
from ltxrt.engines.progress import Progress
from ltxrt.engines.terminal.estimate import Estimate, Stage
from ltxrt.engines.terminal.views import amount, pace

_SECONDS_BETWEEN = 0.2  # that the page is asked to draw


def display() -> Any:
    """IPython's module `display` if this process runs a notebook's cells, else None."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return sys.modules.get("IPython.display") if getattr(shell, "kernel", None) is not None else None


class Notebook:
    """The whole job as a bar, and below it the stage that runs. `shown` is IPython's module `display`."""

    def __init__(self, shown: Any) -> None:
        self._shown, self._handle = shown, None
        self._drawn = 0.0

    def open(self, estimate: Estimate) -> None:
        self._estimate = estimate
        self._handle = self._shown.display(self._shown.HTML(self._page("")), display_id=True)

    def update(self, stage: Stage, progress: Progress) -> None:
        now = time.monotonic()
        if progress.done and now - self._drawn < _SECONDS_BETWEEN:
            return
        self._drawn = now
        self._draw("  ".join(filter(None, (stage.name, amount(stage), pace(stage)))))

    def stopping(self) -> None:
        self._draw("stopping…")

    def close(self) -> None:
        took = clock(time.monotonic() - self._estimate.began)
        self._draw(took, over=True)

    def _draw(self, line: str, over: bool = False) -> None:
        if self._handle is not None:
            self._handle.update(self._shown.HTML(self._page(line, over)))

    def _page(self, line: str, over: bool = False) -> str:
        now = time.monotonic()
        fraction, left = self._estimate.fraction(now), self._estimate.left(now)
        if over or fraction is None or left is None:
            bar = "" if over else "<progress></progress>"
            return f"{bar}<pre>{escape(line)}</pre>"
        said = f"{100 * fraction:.0f} %, about {clock(left)} left"
        return f'<progress value="{fraction:.3f}"></progress> {said}<pre>{escape(line)}</pre>'
