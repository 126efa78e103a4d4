"""The request that the options of `ltx-run` and a settings file state."""

from __future__ import annotations

from typing import Any

import click

from ltxrt.engines.cli_base import name_settings
from ltxrt.runtime.request import options as settings
from ltxrt.runtime.request import yaml_file
from ltxrt.runtime.request.request import Request


def requested(options: dict[str, Any]) -> tuple[Request, list[str]]:
    """The options as a request, with a settings file's values where no option was given.

    Also returns the options that only apply to the first of two passes.
    """
    config = options.pop("config")
    values, second = settings.read(options)
    base: dict[str, Any] = {}
    if config is not None:
        file = yaml_file.read(config)
        base = file.fields()
        given = {*values, *(f"second_pass.{name}" for name in second)}
        name_settings({name: label for name, label in file.names.items() if name not in given})
    whole = settings.merged(base, values, second)
    if "prompt" not in whole:
        raise click.UsageError("Missing option '--prompt'.")
    return Request(**whole), settings.first_only(values, second)
