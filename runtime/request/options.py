"""The options of `ltx-run` that are settings of a request, made from the table, and the request they make.

Standard library and click only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from ltxrt.engines import precision
from ltxrt.engines.cli_base import LtxrtGroup
from ltxrt.engines.errors import InputError, setting
from ltxrt.engines.parsing.text import quoted
from ltxrt.engines.parsing.text import whole as plain_whole
from ltxrt.runtime.request.fields import GROUPS, OF_A_PASS, SETTINGS, Scope, Setting

MOST_VIDEOS = 10_000  # of one command
_SEEDS = re.compile("([0-9]{1,20})(?:-([0-9]{1,20}))?")
_KEYS = ", ".join(OF_A_PASS).replace("_", "-")


class SettingOption(click.Option):
    """What the option of a setting was called before still works and is not shown."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        names, text = super().get_help_record(ctx) or ("", "")
        for name in SETTINGS[self.name or ""].older:
            names = names.replace(f", {name}", "")
        return names, text


def setting_options(command: Any) -> Any:
    """Decorator that gives a click command an option for every setting."""
    for row in reversed(SETTINGS.values()):
        name, kind = row.name.replace("_", "-"), row.kind.option
        off = f"no-{name}"
        flag = row.option or (f"--{name}/--{off}" if kind is bool else f"--{name}")
        command = click.option(
            *(flag, *row.older, row.name),
            cls=SettingOption,
            type=click.Path(path_type=Path) if kind is Path else kind,
            default=None,
            multiple=row.repeated,
            metavar=row.metavar,
            help=_help(row),
        )(command)
    return command


def _help(row: Setting) -> str:
    shown = "the preset's" if row.default is None else row.default
    if row.shown is not None:
        shown = row.shown
    shown = f"{shown:g}" if isinstance(shown, int | float) else shown
    of = "of the first pass; " if row.scope is Scope.PASS else ""
    return row.help.format(keys=_KEYS) + (f" [{of}default: {shown}]" if shown else "")


class RequestGroup(LtxrtGroup):
    """A command with settings among its options: its help has them under the headings of the table."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        records = {p.name: p.get_help_record(ctx) for p in self.get_params(ctx)}
        headings = {"Options": [name for name in records if name not in SETTINGS]}
        headings |= {heading: [row.name for row in rows] for heading, rows in GROUPS.items()}
        for heading, names in headings.items():
            with formatter.section(heading):
                formatter.write_dl([record for name in names if (record := records[name])])
        self.format_commands(ctx, formatter)


def read(given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options, by the names of their settings, as values of a request's fields, and those of its second pass.

    What was not given is left out. Raises InputError about the setting.
    """
    values: dict[str, Any] = {}
    for name, value in given.items():
        kind = SETTINGS[name].kind
        if name == "second_pass" or value in (None, ()):
            continue
        if isinstance(value, tuple):
            values[name] = tuple(kind.from_text(name, one) for one in value)
        elif (found := kind.from_text(name, value) if isinstance(value, str) else value) is not None:
            values[name] = found
    return values, second_pass(given.get("second_pass", ()))


def second_pass(items: Sequence[str]) -> dict[str, Any]:
    """`steps=10`, `guidance-scale=1,3` … as fields of a pass."""
    values: dict[str, Any] = {}
    for item in items:
        key, sign, text = item.partition("=")
        name = key.strip().replace("-", "_")
        if not sign or name not in OF_A_PASS:
            raise InputError(
                f"{setting('second_pass')} {quoted(item)}: must be KEY=VALUE with a KEY of {_KEYS}"
            )
        if name in values:
            raise InputError(f"{setting(f'second_pass.{name}')}: given twice; give it once")
        values[name] = OF_A_PASS[name].kind.from_text(f"second_pass.{name}", text)
    return values


def seeds(text: str) -> tuple[int, ...]:
    """`1-8`, `1,5,9`, `1-4,9`: the seeds, in that order."""
    label = setting("seeds")
    found: list[int] = []
    for part in text.split(","):
        match = _SEEDS.fullmatch(part.strip())
        if match is None:
            raise InputError(f"{label} {quoted(text)}: must be numbers and ranges, as in 1-8 or 1,5,9")
        first, last = plain_whole(match[1]), plain_whole(match[2] or match[1])
        SETTINGS["seed"].check(last, "seeds")
        if not 0 <= last - first < MOST_VIDEOS:
            raise InputError(
                f"{label} {quoted(part)}: must begin with the lower one; up to {MOST_VIDEOS} seeds are taken"
            )
        found += range(first, last + 1)
    if len(set(found)) < len(found):
        twice = next(seed for seed in found if found.count(seed) > 1)
        raise InputError(f"{label} {quoted(text)}: {twice} is in it twice; give it once")
    return tuple(found)


def precisions(text: str | None, components: Sequence[str]) -> dict[str, str]:
    """`fp16`, or `transformer=fp16,vae_decoder=fp32`, as component → precision."""
    if text is None:
        return {}
    if "=" not in text and text.startswith("fp8"):
        label = setting("precision")
        raise InputError(
            f"{label} {text}: only the transformer is quantised to FP8; give {label} transformer={text}, the "
            "other components then run in what the bundle has"
        )
    return precision.parse(text, components)


def merged(base: Mapping[str, Any], own: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """The options given, `own` and those of the `second` pass, over what a settings file says.

    One pass instead of a file's two drops what the file says of the second, and where the first was to stop
    for it.
    """
    left = dict(base)
    files = dict(left.pop("second_pass", {}))
    if own.get("two_passes") is False and base.get("two_passes"):
        left.pop("skip_final", None)
        files = {}
    for name, row in OF_A_PASS.items():
        if row.scope is Scope.BOTH and name in own:
            files.pop(name, None)
    if "tone_map" in second:
        left.pop("tone_map", None)
    return {**over(left, own), "second_pass": over(files, second)}


def first_only(own: Iterable[str], second: Iterable[str]) -> list[str]:
    """Those of the options given that the first of two passes alone follows."""
    given = set(own) - set(second)
    return [name for name, row in OF_A_PASS.items() if row.scope is Scope.PASS and name in given]


def over(base: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` over `base`; steps and timesteps replace one another."""
    either = ("steps", "timesteps")
    replaced = either if any(name in values for name in either) else ()
    return {**{n: v for n, v in base.items() if n not in replaced}, **values}
