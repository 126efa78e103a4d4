"""The help of `ltx-run`, options under headings; and which option was meant by a name that is none."""

from __future__ import annotations

from collections.abc import Iterable

import click

from ltxrt.engines.cli_base import LtxrtGroup
from ltxrt.engines.parsing.near import nearest
from ltxrt.engines.parsing.text import quoted
from ltxrt.runtime.request.fields import GROUPS
from ltxrt.runtime.request.foreign import FOREIGN

EXAMPLES = (
    'ltx-run --bundle bundle --prompt "waves break on the shore" --output waves.mp4',
    'ltx-run --bundle bundle --prompt "night falls" --image a.png --output i2v.mp4',
    'ltx-run --bundle bundle --prompt "a cat" --seeds 1-4 --output "cat-{seed}.mp4"',
)
PRESETS = (
    "What is not given, and has no default below, is the preset's: --list-presets shows the bundle's. "
    "diffusers' and the official program's names of options work too, such as --fps, --num-inference-steps."
)
REST = "…"  # the settings of the heading that are not named
# Heading → its options in order, by their names without dashes in front. Settings that are new in the table
# need no entry, other options do.
HEADINGS: dict[str, tuple[str, ...]] = {
    "Basics": ("bundle", "prompt", "output", REST, "seeds", "prompts", "from", "sources"),
    "Images and video": (REST,),
    "Steps and decoding": (REST,),
    "Guidance": (REST,),
    "Two passes": (REST,),
    "Reproducing torch and official runs": ("config", REST),
    "Performance": ("backend", "precision", "device", "threads", REST, "keep-loaded"),
    "Output": ("overwrite", "skip-existing", "codec", "crf", "bit-depth", "preview", "no-metadata"),
    "Information": ("list-presets", "explain", "quiet", "json", "debug", "version", "help"),
}
NOTES = {
    "Two passes": "--steps, --timesteps, --skip-initial, --skip-final and guidance are the first pass's; "
    "--second-pass sets the second's.",
}
OTHERS = "Other options"
_HYPHEN = "\u2011"  # the non-breaking one


class _Suggesting(click.Group):
    """Says which option was meant by a name that is none."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            meant = self._meant_by(ctx, error.option_name)
            hint = f" Did you mean '{meant}'?" if meant else ""
            raise click.UsageError(f"No such option {quoted(error.option_name)}.{hint}", ctx) from None

    def _meant_by(self, ctx: click.Context, given: str) -> str | None:
        options = [one for one in self.get_params(ctx) if isinstance(one, click.Option) and not one.hidden]
        shown = {name: one.opts[0] for one in options for name in one.opts}
        shown |= {name: name for one in options for name in one.secondary_opts}
        name = given.lower().lstrip("-").replace("_", "-").replace(".", "-")
        if (known := FOREIGN.get(name)) in shown:
            return known
        near = nearest(f"--{name}", shown)
        return shown[near] if near else None


class RunGroup(LtxrtGroup, _Suggesting):
    """The command `ltx-run`."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if not (args[0].startswith("-") or ctx.resilient_parsing or nearest(args[0], self.commands)):
            where = "values follow their options, as in --prompt TEXT"
            raise click.UsageError(f"No such command {quoted(args[0])}; {where}.", ctx)
        return super().resolve_command(ctx, args)

    def get_help(self, ctx: click.Context) -> str:
        return super().get_help(ctx).replace(_HYPHEN, "-")

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_help_text(ctx, formatter)
        with formatter.section("Examples"):
            for line in EXAMPLES:
                formatter.write(f"{'':>{formatter.current_indent}}{line}\n")
        formatter.write_paragraph()
        formatter.write_text(_unbroken(PRESETS))

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for heading, options in placed(self.get_params(ctx)).items():
            there = (option.get_help_record(ctx) for option in options)
            records = [(names, _unbroken(text)) for names, text in filter(None, there)]
            if not records:
                continue
            with formatter.section(heading):
                if heading in NOTES:
                    formatter.write_text(_unbroken(NOTES[heading]))
                formatter.write_dl(records)
        self.format_commands(ctx, formatter)


def _unbroken(text: str) -> str:
    """The text with hyphens at which no line is broken, since part of an option is none."""
    return text.replace("-", _HYPHEN)


def placed(options: Iterable[click.Parameter]) -> dict[str, list[click.Parameter]]:
    """Heading → the options under it, in order; those without a place come last."""
    left = {next(flag[2:] for flag in one.opts if flag.startswith("--")): one for one in options}
    named = {name for names in HEADINGS.values() for name in names}
    found: dict[str, list[click.Parameter]] = {}
    for heading, names in HEADINGS.items():
        rows = {row.name for row in GROUPS.get(heading, ())}
        rest = [name for name, one in left.items() if one.name in rows and name not in named]
        order = [one for name in names for one in (rest if name == REST else [name])]
        found[heading] = [left.pop(name) for name in order if name in left]
    found[OTHERS] = [*left.values()]
    return found
