"""`--config FILE.yaml`: settings files, our own and the official LTX-Video pipeline files as they are.

The keys are the names of `fields`, and the official ones, which are those of LTX-Video's `configs/*.yaml`.
Which values fit a model, and what holds where a file says nothing, is for the bundle's preset and `request`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ltxrt.engines.errors import InputError
from ltxrt.runtime.request import kinds, plain_yaml
from ltxrt.runtime.request.fields import OF_A_PASS, SETTINGS, Scope, why_unknown

# Keys of a file that are no settings of a request.
_PIPELINE = kinds.choice("base", "multi-scale")
_SECTIONS = ("first_pass", "second_pass")
# Official keys for what a bundle holds already, or for what this runtime does not do: enhancing prompts.
_IGNORED = (
    "checkpoint_path",
    "precision",
    "text_encoder_model_name_or_path",
    "spatial_upscaler_model_path",
    "prompt_enhancement_words_threshold",
    "prompt_enhancer_image_caption_model_name_or_path",
    "prompt_enhancer_llm_model_name_or_path",
)
_SETTINGS = tuple(name for name in SETTINGS if name != "second_pass")
_TOP = (*_SETTINGS, "pipeline_type", *_SECTIONS, *_IGNORED)
_ALIASES = {key: row.name for row in SETTINGS.values() for key in row.keys}

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


@dataclass(frozen=True)
class FileSettings:
    """What a file states; nothing is filled in.

    values: the request's fields; passes: those of each pass, () where the file speaks of none, one for a base
    file, two for a multi-scale file; ignored: keys that concern the official program alone; official: it has
    a pipeline_type, so what its passes leave out is the official pipeline's default; names: what the file
    calls each setting that it gives. `stochastic` is in `values` where `passes` is (), else in each pass it
    holds for: never in both.
    """

    values: dict[str, Any]
    passes: tuple[dict[str, Any], ...]
    ignored: tuple[str, ...]
    official: bool = False
    names: Mapping[str, str] = field(default_factory=dict)

    def fields(self) -> dict[str, Any]:
        """As fields of a request; tone mapping is the last pass's, before decoding."""
        values = dict(self.values)
        if self.official:
            values.setdefault("decode_timestep", OFFICIAL_DECODE_TIMESTEP)
            values.setdefault("decode_noise_scale", values["decode_timestep"])
        if not self.passes:
            return values
        passes = [_official(one) if self.official else dict(one) for one in self.passes]
        for one in passes:
            if one.get("guidance_timesteps", ()) is None:
                one["guidance_timesteps"] = ()  # none, where None would be the preset's
        tone_maps = [one.pop("tone_map", None) for one in passes]
        if len(passes) > 1 and tone_maps[0] is not None:
            raise InputError("tone mapping comes before decoding; give it in second_pass, not in first_pass")
        if tone_maps[-1] is not None or self.official:
            values["tone_map"] = tone_maps[-1] or 0.0
        second = {"second_pass": passes[1]} if len(passes) > 1 else {}
        return {"two_passes": len(passes) > 1, **values, **passes[0], **second}


def _official(one: Mapping[str, Any]) -> dict[str, Any]:
    """A pass of an official file, with what the official pipeline takes for what it leaves out."""
    steps = {} if "timesteps" in one else {"steps": OFFICIAL_STEPS}
    return {**OFFICIAL, **steps, **one}


def read(path: Path | str) -> FileSettings:
    """The settings of the YAML file at `path`.

    What stands at the top level holds for both passes of a multi-scale file, unless the pass says otherwise,
    as in the official multi-scale pipeline. Raises InputError, naming file and key, for unknown keys, one key
    under two names, values of another type, passes that contradict themselves, and what is no plain YAML.
    """
    file = str(path)
    keys = _named(plain_yaml.load(Path(path)), _TOP, file)
    passes, labels = _passes(keys, file)
    of_passes = {name for name, row in OF_A_PASS.items() if passes or row.scope is not Scope.BOTH}
    return FileSettings(
        values=_values(keys, [name for name in _SETTINGS if name not in of_passes]),
        passes=passes,
        ignored=tuple(name for name in keys if name in _IGNORED),
        official="pipeline_type" in keys,
        names={**{name: entry.label for name, entry in keys.items()}, **labels},
    )


@dataclass(frozen=True)
class _Entry:
    """A key of the file under the field's name: what to call it in an error, and its raw value."""

    label: str
    raw: object


def _named(data: Mapping[Any, object], allowed: Iterable[str], where: str) -> dict[str, _Entry]:
    """`data` by our names. Refuses what is not `allowed`, and two keys that mean the same."""
    found: dict[str, _Entry] = {}
    for key, raw in data.items():
        dashless = str(key).replace("-", "_")
        name = _ALIASES.get(dashless, dashless)
        if name not in allowed:
            if name in _TOP:
                raise InputError(f"{where}: {key} belongs at the top level of the file, not in a pass")
            known = [one for one in allowed if one not in _IGNORED]
            aliases = [alias for alias, one in _ALIASES.items() if one in allowed]
            raise InputError(f"{where}: {why_unknown(key, known, aliases)}")
        if name in found:
            raise InputError(f"{found[name].label} and {key} are one setting; give it once")
        found[name] = _Entry(f"{where}: {key}", raw)
    return found


def _values(keys: Mapping[str, _Entry], names: Iterable[str]) -> dict[str, Any]:
    """The values of those of `names` that were given; what a word leaves open is not."""
    found = {
        name: SETTINGS[name].kind.data(keys[name].raw, keys[name].label) for name in names if name in keys
    }
    return {name: value for name, value in found.items() if value is not None}


def _passes(keys: Mapping[str, _Entry], file: str) -> tuple[tuple[dict[str, Any], ...], dict[str, str]]:
    """The settings of each pass, and what the file calls those of its sections."""
    shared = _of_a_pass(keys)
    kind = (
        _PIPELINE.data(keys["pipeline_type"].raw, keys["pipeline_type"].label)
        if "pipeline_type" in keys
        else None
    )
    sections = [name for name in _SECTIONS if name in keys]
    if len(sections) == 1:
        missing = next(name for name in _SECTIONS if name not in keys)
        raise InputError(f"{file}: {sections[0]} is given without {missing}; give both or neither")
    if sections and kind == "base":
        raise InputError(f"{file}: pipeline_type is base but there are two passes; it must be multi-scale")
    if sections:
        own = [
            _named(kinds.GROUP.data(keys[n].raw, keys[n].label), OF_A_PASS, keys[n].label) for n in sections
        ]
        passes = tuple(_consistent({**shared, **_of_a_pass(o)}, keys[n].label) for n, o in zip(sections, own))
        labels = {f"second_pass.{name}": entry.label for name, entry in keys.items()}
        for group, of_it in zip(("", "second_pass."), own):
            labels |= {group + name: entry.label for name, entry in of_it.items()}
        return passes, labels
    if kind == "multi-scale":
        raise InputError(f"{file}: pipeline_type is multi-scale; it needs first_pass and second_pass")
    return ((_consistent(shared, file),) if kind or shared.keys() - {"stochastic"} else ()), {}


def _of_a_pass(keys: Mapping[str, _Entry]) -> dict[str, Any]:
    none = {"guidance_timesteps"} & {name for name, entry in keys.items() if entry.raw is None}
    return {**_values({n: e for n, e in keys.items() if n not in none}, OF_A_PASS), **dict.fromkeys(none)}


def _consistent(fields: dict[str, Any], where: str) -> dict[str, Any]:
    """Refuse steps that are said in two ways; the official pipeline would fail, or ignore the skips."""
    if "timesteps" not in fields:
        return fields
    if "steps" in fields:
        raise InputError(
            f"{where}: num_inference_steps and timesteps are given for one pass; keep one of them"
        )
    for name in ("skip_initial", "skip_final"):
        if fields.get(name):
            raise InputError(
                f"{where}: {name}_inference_steps {fields[name]} beside timesteps skips nothing; "
                "leave out of timesteps what is not to run, and remove the key"
            )
    return fields
