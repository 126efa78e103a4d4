"""The options of `ltx-run` that are settings of a request, made from the table, and the request they make.

Standard library and click only.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ltxrt.engines import precision
from ltxrt.engines.errors import InputError, setting
from ltxrt.engines.parsing.near import nearest
from ltxrt.engines.parsing.text import quoted
from ltxrt.engines.parsing.text import whole as plain_whole
from ltxrt.runtime.request.fields import OF_A_PASS, SETTINGS, Scope, Setting
from ltxrt.runtime.request.foreign import FOREIGN
from ltxrt.runtime.request.kinds import BLOCKS, NUMBER, NUMBERS, SWITCH, WHOLE, Kind

MOST_VIDEOS = 10_000  # of one command
_SEEDS = re.compile("([0-9]{1,20})(?:-([0-9]{1,20}))?")
if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

_METAVARS: Mapping[Kind, str] = {WHOLE: "N", NUMBER: "X", NUMBERS: "X[,X…]", BLOCKS: "N[,N…][;…]"}
_KEYS = ", ".join(OF_A_PASS).replace("_", "-")


class SettingOption(click.Option):
    """The option of a setting. Its other names work and are not shown; its values are completed."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        shown = copy.copy(self)
        shown.opts, shown.secondary_opts = self.opts[:1], self.secondary_opts[:1]
        return click.Option.get_help_record(shown, ctx)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        from ltxrt.runtime.request import completion

        found = completion.values(self.name or "", ctx, incomplete)
        return super().shell_complete(ctx, incomplete) if found is None else found


def setting_options(command: Any) -> Any:
    """Decorator that gives a click command an option for every setting."""
    for row in reversed(SETTINGS.values()):
        kind = row.kind.option
        command = click.option(
            *(*_names(row), row.name),
            cls=SettingOption,
            type=click.Path(path_type=Path) if kind is Path else kind,
            default=None,
            multiple=row.repeated,
            metavar=_metavar(row),
            help=_help(row),
        )(command)
    return command


def _names(row: Setting) -> list[str]:
    """The names of a setting's option, the one that is shown first."""
    names = [row.option or f"--{row.name}", *row.older, *(f"--{key}" for key in row.keys)]
    dashed = [name.replace("_", "-") for name in names]
    both = row.kind is SWITCH and not row.option
    shown = [f"{name}/--{'no-' + name[2:]}" if both else name for name in dashed]
    return list(dict.fromkeys(shown))


def _metavar(row: Setting) -> str | None:
    if row.kind.words:
        return f"[{'|'.join(row.kind.words)}]"
    return row.metavar or _METAVARS.get(row.kind)


def _help(row: Setting) -> str:
    """The help of a setting's option. That other defaults are the preset's is said once."""
    shown = row.default if row.shown is None else row.shown
    shown = f"{shown:g}" if isinstance(shown, int | float) else shown
    return row.help.format(keys=_KEYS) + (f"  [default: {shown}]" if shown else "")


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
    names = {key: row.name for row in OF_A_PASS.values() for key in (row.name, *row.keys)}
    for item in items:
        key, sign, text = item.partition("=")
        name = names.get(key.strip().replace("-", "_"), "")
        if not sign or not name:
            meant = FOREIGN.get(key.strip().lower().replace("_", "-"), "--")[2:].replace("-", "_")
            near = meant if meant in names else nearest(key.strip(), names)
            hint = f"did you mean {names[near].replace('_', '-')}=VALUE?" if near else f"KEY is {_KEYS}"
            raise InputError(f"{setting('second_pass')} {quoted(item)}: must be KEY=VALUE; {hint}")
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
        if last < first:
            raise InputError(f"{label} {quoted(part)}: must begin with the lower one, as in {last}-{first}")
        if len(found) + last - first >= MOST_VIDEOS:
            raise InputError(
                f"{label} {quoted(text)}: are more than {MOST_VIDEOS} videos; use several commands"
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
