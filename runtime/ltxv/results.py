"""Events and results of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ltxrt.runtime.ltxv.plan import Plan
from ltxrt.runtime.ltxv.settings import Settings
from ltxrt.runtime.sampling.denoise import Step


@dataclass(frozen=True)
class Event:
    """An event for a watcher: a stage begins (`step` None), or one of its `total` steps is done.

    `step.latents["video"]` are the video's own tokens (1,N,C) after the step.
    """

    stage: str
    step: Step | None = None
    total: int = 0


Watch = Callable[[Event], None]


@dataclass(frozen=True)
class Stream:
    """A video that is still being decoded: `frames` yields (n, H, W, 3) uint8, in order, once.

    Also has the plan that is executed, and the number of truncated prompt tokens.
    """

    frames: Iterator[NDArray[np.uint8]]
    plan: Plan
    truncated: int

    @property
    def settings(self) -> Settings:
        return self.plan.settings


def unwatched(_event: Event) -> None:
    """The default watcher."""
