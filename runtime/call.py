"""Calling a pipeline with a prompt and settings as keywords."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar, Unpack, overload

from ltxrt.engines.bundle import Bundle
from ltxrt.engines.errors import InputError, setting, worded
from ltxrt.engines.progress import Expecting, Report, of_parts, part, unreported
from ltxrt.runtime.engine_pool import Engines
from ltxrt.runtime.families import family
from ltxrt.runtime.request import options, record
from ltxrt.runtime.request.keywords import Keywords, check_settings
from ltxrt.runtime.request.request import Request

V = TypeVar("V")  # a family's video


class PromptCall(ABC, Generic[V]):
    """A pipeline that can be called with a prompt, or with several."""

    bundle: Bundle
    engines: Engines

    @abstractmethod
    def prepare(self, request: Request) -> Any:
        """The request's `plan` and what else `generate` needs; InputError for an impossible request."""

    @abstractmethod
    def encode_prompts(self, plans: Iterable[Any], *, report: Report = ...) -> None:
        """Encode the prompts of several plans with one load of the text encoder."""

    @abstractmethod
    def generate(self, request: Any, *, report: Report = ...) -> V:
        """The video of a request, or of what `prepare` returned."""

    @overload
    def __call__(
        self, prompt: str, *, progress: bool | Report = False, **settings: Unpack[Keywords]
    ) -> V: ...

    @overload
    def __call__(
        self,
        prompt: list[str] | tuple[str, ...],
        *,
        progress: bool | Report = False,
        **settings: Unpack[Keywords],
    ) -> list[V]: ...

    def __call__(
        self,
        prompt: str | list[str] | tuple[str, ...],
        *,
        progress: bool | Report = False,
        **settings: Unpack[Keywords],
    ) -> V | list[V]:
        """The video of a prompt, or for several prompts a list with a video of each.

        progress: True shows bars on a terminal and in notebooks and lines elsewhere, on stderr; a function is
        told of each `ltxrt.engines.progress.Progress`, and may raise to cancel. The other keywords are the
        settings of `Request`, with the same defaults.

        Warns of a prompt whose end is cut off, of settings without effect, and of too little memory. Raises
        InputError for settings that are wrong, all prompts' before the first video is made, and
        UnknownKeywordError, which is a TypeError as well, for one that there is not.
        """
        check_settings(settings)
        if isinstance(prompt, str):
            return self._videos([Request(prompt, **settings)], progress)[0]
        if not isinstance(prompt, list | tuple):
            raise InputError(
                f"{setting('prompt')} is of type {type(prompt).__name__}; give a text or several"
            )
        return self._videos([Request(one, **settings) for one in prompt], progress)

    def again(
        self,
        video: Path | str,
        *,
        sources: Sequence[Path | str] = (),
        progress: bool | Report = False,
        prompt: str | None = None,
        **settings: Unpack[Keywords],
    ) -> V:
        """The video in a file, made again from what the file says of itself; settings given here change it.

        sources: folders in which the images and videos that it was made from are looked for, besides its own
        and the current one; progress: as for a call.

        Warns where the same frames cannot be expected: of other weights, another backend or precision, other
        threads. Raises InputError for a file that does not say how it was made, an input file that is not
        found, and settings that are wrong.
        """
        check_settings(settings)
        own: dict[str, Any] = {**settings, **({} if prompt is None else {"prompt": prompt})}
        second = own.pop("second_pass", {})
        from ltxrt.runtime import remade  # for this alone

        made = record.read(video)
        values, notes = remade.fields(made, self.bundle, own, [Path(folder) for folder in sources])
        request = Request(**options.merged(values, own, second))
        precisions = {name: self.engines.precision(name) for name in made.precisions}
        notes += remade.other_weights(made, self.bundle, precisions)
        for line in (*notes, *remade.other_engines(made, self.engines, precisions)):
            warnings.warn(worded(line, str).removeprefix("note: "), stacklevel=2)
        return self._videos([request], progress)[0]

    def _videos(self, requests: Sequence[Request], progress: bool | Report) -> list[V]:
        with _reported(progress) as report:
            prepared = [self.prepare(request) for request in requests]
            for line in dict.fromkeys(line for one in prepared for line in self._notes(one)):
                warnings.warn(line, stacklevel=3)
            count = len(requests)
            labels = [f"video {n}/{count}" if count > 1 else "" for n in range(1, count + 1)]
            if isinstance(report, Expecting) and prepared:
                self._expect(report, prepared, labels)
            if len(requests) > 1:
                self.encode_prompts([one.plan for one in prepared], report=report)
            return [self.generate(one, report=part(report, label)) for one, label in zip(prepared, labels)]

    def _notes(self, prepared: Any) -> list[str]:
        """What the caller may not expect of a request."""
        plan = prepared.plan
        lines = [worded(line, str).removeprefix("note: ") for line in family(self.bundle.family).notes(plan)]
        if (shortage := family(self.bundle.family).shortage(plan, self.engines)) is not None:
            lines.append(worded(shortage, str).removeprefix("warning: "))
        return [*lines, *(worded(line, str) for line in prepared.cut_off)]

    def _expect(self, shown: Expecting, prepared: Sequence[Any], labels: Sequence[str]) -> None:
        """Tell a report which stages come, and about how long they take."""
        model = family(self.bundle.family)
        stages = (model.expected_seconds(one.plan, self.engines) for one in prepared)
        key = model.timing_key(prepared[0].plan, self.engines)
        shown.expect(of_parts(zip(labels, stages), model.BEFORE_ALL.values()), key)


@contextmanager
def _reported(progress: bool | Report) -> Iterator[Report]:
    """What `progress` stands for while the block runs."""
    if progress is True:
        from ltxrt.engines.terminal import job  # the one place here that knows of terminals: it was asked for

        with job("ltxrt") as shown:
            yield shown
    elif progress is False:
        yield unreported
    elif callable(progress):
        yield progress
    else:
        raise InputError(f"progress is of type {type(progress).__name__}; give True, False or a function")
