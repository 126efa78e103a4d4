"""Text of command line options to the values of a request. Standard library only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ltxrt.engines.errors import InputError, setting
from ltxrt.engines.parsing import text as given
from ltxrt.engines.parsing.text import quoted

if TYPE_CHECKING:
    from ltxrt.runtime.request.yaml_file import FileSettings


def numbers(name: str, text: str) -> tuple[float, ...]:
    """`"1,0.9875,0.725"` as numbers."""
    try:
        return tuple(given.number(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(
            f"{setting(name)} {quoted(text)}: must be numbers with commas, as in 1,0.9875,0.725"
        ) from error


def blocks(name: str, text: str) -> tuple[tuple[int, ...], ...]:
    """`"11,25;22"` as lists of block numbers, a list for each guidance timestep.

    An empty list perturbs no block: `";0,1;2"` is an empty one and two others, `""` is one empty list.
    """
    try:
        lists = (part.split(",") if part.strip() else [] for part in text.split(";"))
        return tuple(tuple(given.whole(number) for number in numbers_) for numbers_ in lists)
    except ValueError as error:
        raise InputError(
            f"{setting(name)} {quoted(text)}: must be block numbers with commas, a semicolon between lists, "
            "as in 11,25;28, where ;28 begins with an empty list"
        ) from error


def _integer(name: str, text: str) -> int:
    try:
        return given.whole(text)
    except ValueError as error:
        raise InputError(
            f"{setting(name)} {quoted(text)}: must be a whole number of up to {given.DIGITS} digits"
        ) from error


def _number(name: str, text: str) -> float:
    try:
        return given.number(text)
    except ValueError as error:
        raise InputError(f"{setting(name)} {quoted(text)}: must be a number") from error


def _yes_or_no(name: str, text: str) -> bool:
    if text not in ("yes", "no"):
        raise InputError(f"{setting(name)} {quoted(text)}: must be yes or no")
    return text == "yes"


def _text(_name: str, text: str) -> str:
    return text


# How each field of a pass is written; each has a flag of its own too, the first pass's. As in official files
# the second pass may say how latents are compressed after it.
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
    "tone_map": _number,
}
BOTH_PASSES = ("stochastic", "tone_map")  # whose flag is not the first pass's alone


def second_pass(items: Sequence[str]) -> dict[str, Any]:
    """`steps=10`, `guidance-scale=1,3` … as fields of a pass."""
    values: dict[str, Any] = {}
    for item in items:
        key, sign, text = item.partition("=")
        name = key.strip().replace("-", "_")
        if not sign or name not in PASS:
            known = ", ".join(n.replace("_", "-") for n in PASS)
            raise InputError(
                f"{setting('second_pass')} {quoted(item)}: must be KEY=VALUE with a KEY of {known}"
            )
        if name in values:
            raise InputError(f"{setting(f'second_pass.{name}')}: given twice; give it once")
        values[name] = PASS[name](f"second_pass.{name}", text)
    return values


def precisions(text: str | None, components: Sequence[str]) -> dict[str, str]:
    """`fp16`, or `transformer=fp16,vae_decoder=fp32`, as component → precision."""
    if text is None:
        return {}
    if "=" not in text and text.startswith("fp8"):
        raise InputError(
            f"{setting('precision')} {text}: only the transformer is quantised to FP8; give "
            f"{setting('precision')} transformer={text}, the other components then run in what the bundle has"
        )
    if "=" not in text:
        return dict.fromkeys(components, text)
    pairs = [item.partition("=")[::2] for item in text.split(",")]
    for name, _ in pairs:
        if name not in components:
            raise InputError(
                f"{setting('precision')} names {quoted(name)}; components are {', '.join(components)}"
            )
    if len(dict(pairs)) < len(pairs):
        raise InputError(
            f"{setting('precision')} {quoted(text)}: names a component twice; give each one precision"
        )
    return dict(pairs)


# What the official pipeline takes where a file of its own says nothing (the defaults of
# `LTXVideoPipeline.__call__`, and of `inference.py` for stg_mode); no guidance timesteps is ().
OFFICIAL: Mapping[str, Any] = {
    "skip_initial": 0,
    "skip_final": 0,
    "guidance_scale": (4.5,),
    "stg_scale": (1.0,),
    "rescaling_scale": (0.7,),
    "stg_mode": "attention_values",
    "guidance_timesteps": (),
    "skip_block_list": ((),),
    "cfg_star": False,
    "stochastic": False,
}
OFFICIAL_STEPS = 20
OFFICIAL_DECODE_TIMESTEP = 0.0  # and the scale of the noise is the timestep


def from_file(settings: FileSettings) -> dict[str, Any]:
    """What a settings file says, as fields of a request; tone mapping is the last pass's, before decoding."""
    values: dict[str, Any] = dict(settings.values)
    if settings.sampler is not None:
        values["sampler"] = settings.sampler
    if settings.official:
        values.setdefault("decode_timestep", OFFICIAL_DECODE_TIMESTEP)
        values.setdefault("decode_noise_scale", values["decode_timestep"])
    if not settings.passes:
        return values
    passes = [_official(one) if settings.official else dict(one) for one in settings.passes]
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


def _official(one: Mapping[str, Any]) -> dict[str, Any]:
    """A pass of an official file, with what the official pipeline takes for what it leaves out."""
    steps = {} if "timesteps" in one else {"steps": OFFICIAL_STEPS}
    return {**OFFICIAL, **steps, **one}


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
    for name in BOTH_PASSES:
        if name in own:
            files.pop(name, None)
    if "tone_map" in second:
        left.pop("tone_map", None)
    return {**over(left, own), "second_pass": over(files, second)}


def first_only(own: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """Those of the options given that the first of two passes alone follows."""
    return [name for name in PASS if name in own and name not in second and name not in BOTH_PASSES]


def over(base: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` over `base`; steps and timesteps replace one another."""
    either = ("steps", "timesteps")
    replaced = either if any(name in values for name in either) else ()
    return {**{n: v for n, v in base.items() if n not in replaced}, **values}
