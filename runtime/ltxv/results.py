"""Events and results of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ltxrt.engines.bundle import Bundle
from ltxrt.engines.errors import InterruptedRunError, setting
from ltxrt.engines.progress import Progress, Report, unreported
from ltxrt.runtime.ltxv.guidance import STREAM
from ltxrt.runtime.ltxv.plan import Plan
from ltxrt.runtime.ltxv.prompt import Tokens
from ltxrt.runtime.ltxv.settings import Settings
from ltxrt.runtime.sampling.denoise import Step
from ltxrt.runtime.sampling.latents import LatentShape, unpack


@dataclass(frozen=True)
class Event:
    """An event for a watcher: a stage begins (`step` None), or one of its `total` steps is done.

    `step.latents["video"]` are the video's own tokens (1,N,C) after the step, of the size `shape`. number:
    which of `passes` the stage belongs to, 0 for none.
    """

    stage: str
    step: Step | None = None
    total: int = 0
    number: int = 0
    passes: int = 1
    shape: LatentShape | None = None

    @property
    def clean(self) -> NDArray[np.float32] | None:
        """Latents (1,C,f,h,w) without noise, as the step predicts them: what a preview shows; None for a
        stage."""
        if self.step is None or self.shape is None:
            return None
        return unpack(self.step.clean[STREAM], self.shape)

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


def previewing(plan: Plan, bundle: Bundle, path: Path) -> Watch:
    """A watcher that keeps a preview in `path` (.webp or .png) up to date during the run of `plan`.

    Raises InputError for a bundle without colours for previews, and for a path that cannot be written.
    """
    from ltxrt.runtime import preview  # loads Pillow

    preview.check_path(path, overwrite=True)
    colours = preview.of(bundle)
    strip = preview.Strip(path, plan.settings.preset.frame_rate / plan.model.vae.temporal_compression)

    def watch(event: Event) -> None:
        if event.clean is not None and event.step is not None:
            strip.show(preview.mapped(colours, event.clean), event.step.index + 1 == event.total)

    return watch


def unwatched(_event: Event) -> None:
    """The default watcher."""


class Interruptions:
    """How often a pipeline was interrupted; each ends the runs that began before it."""

    def __init__(self) -> None:
        self._count = 0

    def add(self) -> None:
        self._count += 1

    def checked(self, report: Report) -> Report:
        """`report` for a run that begins now: it raises at the first progress after an interruption."""
        begun = self._count

        def told(progress: Progress) -> None:
            if self._count != begun:
                raise InterruptedRunError(progress.stage)
            report(progress)

        return told


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

    @property
    def cut_off(self) -> list[str]:
        """A sentence on each prompt whose end is not read."""
        limit, names = self.plan.settings.preset.max_tokens, ("negative_prompt", "prompt")
        return [
            f"{setting(name)} has {limit + tokens.truncated} tokens and {setting('max_tokens')} is {limit}: "
            "its end is cut off; shorten it"
            for name, tokens in zip(names[-len(self.tokens) :], self.tokens)
            if tokens.truncated
        ]


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
