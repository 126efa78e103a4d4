"""The requests that the options of `ltx-run`, a settings file and a file of prompts state."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from ltxrt.engines.cli_base import name_settings
from ltxrt.engines.errors import InputError, setting
from ltxrt.engines.families import component_names
from ltxrt.runtime.families import Family
from ltxrt.runtime.request import options as settings
from ltxrt.runtime.request.fields import DRAW_SEED
from ltxrt.runtime.request.request import Request

if TYPE_CHECKING:
    from ltxrt.runtime.request.prompts import Line


@dataclass(frozen=True)
class Asked:
    """A video that was asked for.

    drawn: whether its seed was drawn; first: the options given that the first of two passes alone follows;
    line: the line of --prompts it comes from.
    """

    request: Request
    drawn: bool
    first: tuple[str, ...]
    line: Line | None = None

    def named(self) -> AbstractContextManager[None]:
        """Around work on it: errors about what its line says name the line."""
        return nullcontext() if self.line is None else self.line.named()


def firsts(asked: Sequence[Asked]) -> list[Asked]:
    """Each line's first video: the plans of its other seeds are the same."""
    return list({id(one.line): one for one in reversed(asked)}.values())


def pool_options(options: dict[str, Any]) -> dict[str, Any]:
    """The options about engines, which are taken out of `options`, as keywords of a pipeline."""
    pool = {key: options.pop(key) for key in ("backend", "device", "threads", "keep_loaded")}
    return {**pool, "precision": settings.precisions(options.pop("precision"), component_names())}


def keep_for_several(pool: dict[str, Any], model: Family) -> None:
    """Keep the engines between several videos; what runs before all of them is not held in memory beside
    the rest."""
    pool["keep_loaded"] = pool["keep_loaded"] or set(component_names()) - set(model.BEFORE_ALL)


def requested(options: dict[str, Any], remembered: Callable[[set[str]], dict[str, Any]]) -> list[Asked]:
    """What the options ask for, with a settings file's values where no option was given, and else what is
    `remembered` by a video, which is told the settings that are given otherwise.

    One video; or one for each line of --prompts, whose settings come before the options', each with all of
    --seeds.
    """
    config, file, seeds = (options.pop(name) for name in ("config", "prompts", "seeds"))
    values, second = settings.read(options)
    file_says = _of_file(config, {*values, *(f"second_pass.{name}" for name in second)})
    base = remembered({*values, *file_says, *(f"second_pass.{name}" for name in second)})
    base = settings.merged(base, file_says, file_says.pop("second_pass", {}))
    _exclude(values, prompt=file, seed=seeds)
    lines: list[Line | None] = [None] if file is None else [*_read_prompts(file)]
    numbers = (None,) if seeds is None else settings.seeds(seeds)
    if len(lines) * len(numbers) > settings.MOST_VIDEOS:
        raise InputError(
            f"{len(lines)} prompts with {len(numbers)} seeds are more than {settings.MOST_VIDEOS} videos; "
            "make them by several commands"
        )
    common = settings.merged(base, values, second), settings.first_only(values, second)
    return [one for line in lines for one in _of_line(line, *common, numbers)]


def _read_prompts(file: Any) -> list[Line]:
    from ltxrt.runtime.request import prompts  # for this alone

    return prompts.read(file)


def _of_file(config: Any, given: set[str]) -> dict[str, Any]:
    """The values of a settings file, whose keys messages name, except for settings `given` otherwise."""
    if config is None:
        return {}
    from ltxrt.runtime.request import yaml_file  # for this alone

    file = yaml_file.read(config)
    name_settings({name: label for name, label in file.names.items() if name not in given})
    return file.fields()


def _exclude(values: Mapping[str, Any], **several: Any) -> None:
    for one, given in several.items():
        if given is not None and one in values:
            raise InputError(f"{setting(one)} and {setting(f'{one}s')} exclude each other; give one of them")


def _of_line(
    line: Line | None, common: dict[str, Any], first: list[str], seeds: tuple[int | None, ...]
) -> list[Asked]:
    own = dict(line.values) if line is not None else {}
    if "seed" in own and seeds != (None,):
        place = line.place if line is not None else ""
        raise InputError(f"{place}: seed is given there and by {setting('seeds')}; keep one of them")
    with line.named() if line is not None else nullcontext():
        whole = settings.merged(common, own, own.pop("second_pass", {}))
        if "prompt" not in whole:
            if line is None:
                raise click.UsageError("Missing option '--prompt'.")
            raise InputError("the prompt is missing; describe the video")
        drawn = seeds == (None,) and whole.get("seed", 0) in (None, DRAW_SEED)
        first = [name for name in first if name not in own]
        numbered = [whole if seed is None else {**whole, "seed": seed} for seed in seeds]
        return [Asked(Request(**one), drawn, tuple(first), line) for one in numbered]
