"""A request as JSON, as a server takes it and a program keeps it: an object of settings by their names.

Strict: unknown names, other types, and values out of bounds are refused, with an error that is about the
setting (`InputError.field`). What is left out, or null, is left open. An image, a video or noise is the name
of a file: what names a client may give is for the server to decide, before or after `read`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ltxrt.engines.errors import InputError, setting
from ltxrt.engines.parsing import json_input
from ltxrt.runtime.request import kinds
from ltxrt.runtime.request.fields import OF_A_PASS, SETTINGS, Setting, why_unknown
from ltxrt.runtime.request.request import Request


def loads(text: bytes | str) -> Request:
    """The request that a JSON text states. Raises InputError for what is no JSON, and as `read` does."""
    try:
        data = json_input.parse(text)
    except ValueError as error:
        raise InputError(f"the request is no JSON that is read here: {error}") from error
    return read(data)


def read(data: object) -> Request:
    """The request that decoded JSON states. Raises InputError about the setting that is wrong."""
    values = given(data)
    if "prompt" not in values:
        raise InputError(f"{setting('prompt')} is missing; describe the video")
    return Request(**values)


def given(data: object) -> dict[str, Any]:
    """The settings that decoded JSON gives. Raises InputError about the setting that is wrong."""
    if not isinstance(data, dict):
        raise InputError(f"the request is {kinds.shown(data)}; it must be an object of settings")
    values = _values(data, SETTINGS, "")
    if "second_pass" in values:
        values["second_pass"] = _values(values["second_pass"], OF_A_PASS, "second_pass.")
    return values


def write(request: Request) -> dict[str, Any]:
    """What `read` makes the same request of: the settings that are not left at their defaults.

    Raises InputError for an array of pixels or noise, which has no name.
    """
    data: dict[str, Any] = {}
    for name, row in SETTINGS.items():
        value = getattr(request, name)
        if value is not row.default and (row.default is None or value != row.default):
            data[name] = plain(name, value)
    return data


def plain(name: str, value: Any) -> Any:
    """A setting's value as JSON has it; NumPy's numbers as Python's."""
    if name == "second_pass":
        return {own: plain(own, one) for own, one in value.items() if one is not None}
    return _builtin(SETTINGS[name].kind.json(value))


def _builtin(value: Any) -> Any:
    if isinstance(value, list):
        return [_builtin(one) for one in value]
    return value.item() if hasattr(value, "item") else value


def _values(data: Mapping[Any, object], rows: Mapping[str, Setting], group: str) -> dict[str, Any]:
    if unknown := [key for key in data if key not in rows]:
        raise InputError(why_unknown(unknown[0], rows))
    found: dict[str, Any] = {}
    for key, raw in data.items():
        if key == "guidance_timesteps" and raw == []:
            found[key] = ()  # none, where None would be the preset's
        elif raw is not None:
            found[key] = rows[key].kind.data(raw, setting(group + key))
    return found
