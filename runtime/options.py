"""Text of command line options to the values of a request. Standard library only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ltxrt.engines.errors import InputError

if TYPE_CHECKING:
    from ltxrt.runtime.settings_file import FileSettings


def numbers(flag: str, text: str) -> tuple[float, ...]:
    """`"1,0.9875,0.725"` as numbers."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"{flag} {text!r}: must be numbers with commas, as in 1,0.9875,0.725") from error


def blocks(flag: str, text: str) -> tuple[tuple[int, ...], ...]:
    """`"11,25;22"` as lists of block numbers, a list for each guidance timestep; `""` is one empty list."""
    try:
        lists = (part.split(",") if part.strip() else [] for part in text.split(";"))
        return tuple(tuple(int(number) for number in numbers_) for numbers_ in lists)
    except ValueError as error:
        raise InputError(
            f"{flag} {text!r}: must be block numbers with commas, a semicolon between lists, as in 11,25;28"
        ) from error


def _integer(flag: str, text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise InputError(f"{flag} {text!r}: must be a whole number") from error


def _yes_or_no(flag: str, text: str) -> bool:
    if text not in ("yes", "no"):
        raise InputError(f"{flag} {text!r}: must be yes or no")
    return text == "yes"


def _text(_flag: str, text: str) -> str:
    return text


# How each field of a pass is written; the first pass has a flag for each.
PASS: Mapping[str, Callable[[str, str], Any]] = {
    "steps": _integer,
    "timesteps": numbers,
    "skip_initial": _integer,
    "skip_final": _integer,
    "guidance_scale": numbers,
    "stg_scale": numbers,
    "rescaling_scale": numbers,
    "guidance_timesteps": numbers,
    "skip_block_list": blocks,
    "stg_mode": _text,
    "cfg_star": _yes_or_no,
    "stochastic": _yes_or_no,
}


def second_pass(items: Sequence[str]) -> dict[str, Any]:
    """`steps=10`, `guidance-scale=1,3` … as fields of a pass."""
    values: dict[str, Any] = {}
    for item in items:
        key, sign, text = item.partition("=")
        name = key.strip().replace("-", "_")
        if not sign or name not in PASS:
            known = ", ".join(n.replace("_", "-") for n in PASS)
            raise InputError(f"--second-pass {item!r}: must be KEY=VALUE with a KEY of {known}")
        if name in values:
            raise InputError(f"--second-pass {key}: given twice; give it once")
        values[name] = PASS[name](f"--second-pass {key}", text)
    return values


def precisions(text: str | None, components: Sequence[str]) -> dict[str, str]:
    """`fp16`, or `transformer=fp16,vae_decoder=fp32`, as component → precision."""
    if text is None:
        return {}
    if "=" not in text and text.startswith("fp8"):
        raise InputError(
            f"--precision {text}: only the transformer is quantised to FP8; give --precision "
            f"transformer={text}, the other components then run in what the bundle has"
        )
    if "=" not in text:
        return dict.fromkeys(components, text)
    pairs = [item.partition("=")[::2] for item in text.split(",")]
    for name, _ in pairs:
        if name not in components:
            raise InputError(f"--precision names {name!r}; components are {', '.join(components)}")
    if len(dict(pairs)) < len(pairs):
        raise InputError(f"--precision {text!r}: names a component twice; give each one precision")
    return dict(pairs)


# What the official pipeline takes where a file of its own says nothing; no guidance timesteps is ().
OFFICIAL: Mapping[str, Any] = {
    "skip_initial": 0,
    "skip_final": 0,
    "guidance_timesteps": (),
    "skip_block_list": ((),),
    "cfg_star": False,
    "stochastic": False,
}


def from_file(settings: FileSettings) -> dict[str, Any]:
    """What a settings file says, as fields of a request; tone mapping is the last pass's, before decoding."""
    values: dict[str, Any] = dict(settings.values)
    if settings.sampler is not None:
        values["sampler"] = settings.sampler
    if not settings.passes:
        return values
    passes = [{**(OFFICIAL if settings.official else {}), **one} for one in settings.passes]
    for one in passes:
        if one.get("guidance_timesteps", ()) is None:
            one["guidance_timesteps"] = ()  # none, where None would be the preset's
    tone_maps = [one.pop("tone_map", None) for one in passes]
    if len(passes) > 1 and tone_maps[0] is not None:
        raise InputError("tone mapping comes before decoding; give it in second_pass, not in first_pass")
    if tone_maps[-1] is not None or settings.official:
        values["tone_map"] = tone_maps[-1] or 0.0
    second = {"second_pass": passes[1]} if len(passes) > 1 else {}
    return {**values, **passes[0], "two_passes": len(passes) > 1, **second}


def over(base: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` over `base`; steps and timesteps replace one another."""
    either = ("steps", "timesteps")
    replaced = either if any(name in values for name in either) else ()
    return {**{n: v for n, v in base.items() if n not in replaced}, **values}
