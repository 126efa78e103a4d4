"""Events and results of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ltxrt.engines.progress import Progress, Report, unreported
from ltxrt.runtime.ltxv.plan import Plan
from ltxrt.runtime.ltxv.prompt import Tokens
from ltxrt.runtime.ltxv.settings import Settings
from ltxrt.runtime.sampling.denoise import Step


@dataclass(frozen=True)
class Event:
    """An event for a watcher: a stage begins (`step` None), or one of its `total` steps is done.

    `step.latents["video"]` are the video's own tokens (1,N,C) after the step. number: which of `passes` the
    stage belongs to, 0 for none.
    """

    stage: str
    step: Step | None = None
    total: int = 0
    number: int = 0
    passes: int = 1

    @property
    def progress(self) -> Progress:
        """The event as progress of its stage."""
        done = 0 if self.step is None else self.step.index + 1
        name = stage_name(self.stage, self.number, self.passes)
        return Progress(name, done, self.total or None, "step" if self.total else "")


def stage_name(stage: str, number: int, passes: int) -> str:
    """A stage's name in progress: "transformer, pass 1/2" where there are several passes."""
    return f"{stage}, pass {number}/{passes}" if number and passes > 1 else stage


Watch = Callable[[Event], None]


def unwatched(_event: Event) -> None:
    """The default watcher."""


@dataclass(frozen=True)
class Audience:
    """Who hears of a run: a watcher of its events, and a report of progress, which hears of tiles too."""

    watch: Watch = unwatched
    report: Report = unreported

    @classmethod
    def of(cls, watch: Watch) -> Self:
        """The audience that `watch` is, or that consists of it."""
        return watch if isinstance(watch, cls) else cls(watch)

    def __call__(self, event: Event) -> None:
        self.watch(event)
        self.report(event.progress)


@dataclass(frozen=True)
class Prepared:
    """A request that can run: its plan, and its prompts' tokens, the negative one's first if there is one."""

    plan: Plan
    tokens: tuple[Tokens, ...]

    @property
    def truncated(self) -> int:
        """The largest number of tokens that a prompt has more than fit."""
        return max(tokens.truncated for tokens in self.tokens)


@dataclass(frozen=True)
class Stream:
    """A video that is still being decoded: `frames` yields (n, H, W, 3), in order, once.

    They are uint8, or uint16 over its full range where `Pipeline.stream` was asked for `deep` ones.

    Also has the plan that is executed, and the number of truncated prompt tokens.
    """

    frames: Iterator[NDArray[np.uint8] | NDArray[np.uint16]]
    plan: Plan
    truncated: int

    @property
    def settings(self) -> Settings:
        return self.plan.settings
