"""What a shell completes behind the options of `ltx-run`; what depends on a bundle is read from --bundle."""

from __future__ import annotations

from collections.abc import Iterable

import click
from click.shell_completion import CompletionItem

from ltxrt.engines.bundle import Bundle, read_bundle
from ltxrt.engines.errors import LtxrtError
from ltxrt.runtime.request.fields import OF_A_PASS, SETTINGS
from ltxrt.runtime.request.kinds import CONDITIONS, FILE

Items = list[CompletionItem]


def values(name: str, ctx: click.Context, incomplete: str) -> Items | None:
    """The values of a setting that begin with `incomplete`; None where there is nothing to know."""
    kind = SETTINGS[name].kind
    if kind in (FILE, CONDITIONS):
        return [CompletionItem(incomplete, type="file")]
    words: Iterable[str] = kind.words
    if name == "preset":
        words = bundle.presets if (bundle := _bundle(ctx)) else ()
    elif name == "gpu":
        from ltxrt.runtime.noise.cuda import GPUS

        words = GPUS
    elif name == "preparation":
        from ltxrt.runtime.media.preprocess import PREPARATIONS, STEPS

        words = (*PREPARATIONS, "none", *STEPS)
    elif name == "second_pass":
        words = (f"{key.replace('_', '-')}=" for key in OF_A_PASS)
    return _beginning(words, incomplete) or None


def folders(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> Items:
    """Names of folders."""
    return [CompletionItem(incomplete, type="dir")]


def precisions(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> Items:
    """The bundle's precisions, of all components and of each; behind a comma those of another one."""
    bundle = _bundle(ctx)
    if bundle is None:
        return []
    of_each = [f"{name}={one}" for name, those in bundle.components.items() for one in those]
    alone = dict.fromkeys(one for those in bundle.components.values() for one in those)
    before, comma, _ = incomplete.rpartition(",")
    return _beginning((before + comma + word for word in (*(() if comma else alone), *of_each)), incomplete)


def _beginning(words: Iterable[str], incomplete: str) -> Items:
    return [CompletionItem(word) for word in words if word.startswith(incomplete)]


def _bundle(ctx: click.Context) -> Bundle | None:
    """The bundle of the command line so far, if it can be read: a completion says nothing of errors."""
    try:
        return read_bundle(ctx.params["bundle"]) if ctx.params.get("bundle") else None
    except (LtxrtError, OSError):
        return None
