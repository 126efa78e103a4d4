"""`--config FILE.yaml`: settings files, our own and the official LTX-Video pipeline files as they are.

Knows YAML and the names of settings. Which values fit a model, and what holds where a file says nothing, is
for the bundle's preset, `request` and `guidance_plan`. The official names are those of LTX-Video's
`configs/*.yaml`.
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ltxrt.engines.errors import InputError

SIZE_LIMIT = 2**20  # bytes; official files have less than two thousand
DEPTH_LIMIT = 8  # of nested blocks and lists; official files have up to 4
EVENT_LIMIT = 10_000  # names, values, ends of blocks and lists; a MiB of them would take half a minute

Read = Callable[[Any, str], object]  # (what YAML gave, what to call it in an error) to the field's value


@dataclass(frozen=True)
class FileSettings:
    """What a file states; nothing is filled in.

    values: the request's fields; passes: those of each pass, () where the file speaks of none, one for a base
    file, two for a multi-scale file; sampler: "uniform" or "linear_quadratic" in place of the checkpoint's
    own schedule and without its shift; ignored: keys that concern the official program alone; official: it
    has a pipeline_type, so what its passes leave out is the official pipeline's default. `stochastic` is in
    `values` where `passes` is (), else in each pass it holds for: never in both.
    """

    values: dict[str, object]
    passes: tuple[dict[str, object], ...]
    sampler: str | None
    ignored: tuple[str, ...]
    official: bool = False


def read(path: Path | str) -> FileSettings:
    """The settings of the YAML file at `path`.

    What stands at the top level holds for both passes of a multi-scale file, unless the pass says otherwise,
    as in the official multi-scale pipeline. Raises InputError, naming file and key, for unknown keys, one key
    under two names, values of another type, passes that contradict themselves, and what is no plain YAML.
    """
    file = str(path)
    keys = _named(_load(Path(path)), _TOP, file)
    passes = _passes(keys, file)
    fields = [name for name in _VALUES if not (passes and name == "stochastic")]
    sampler: Any = _apply(keys, ("sampler",)).get("sampler")
    return FileSettings(
        values=_apply(keys, fields),
        passes=passes,
        sampler=sampler,
        ignored=tuple(name for name in keys if name in _IGNORED),
        official="pipeline_type" in keys,
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
            raise InputError(f"{where}: {_why_unknown(key, dashless, allowed)}")
        if name in found:
            raise InputError(f"{found[name].label} and {key} are one setting; give it once")
        found[name] = _Entry(f"{where}: {key}", raw)
    return found


def _why_unknown(key: object, dashless: str, allowed: Iterable[str]) -> str:
    if _ALIASES.get(dashless, dashless) in _TOP:
        return f"{key} belongs at the top level of the file, not in a pass"
    known = [*allowed, *(alias for alias, name in _ALIASES.items() if name in allowed)]
    near = difflib.get_close_matches(dashless, known, 1)
    names = ", ".join(name for name in allowed if name not in _IGNORED)
    hint = f"the nearest known one is {near[0]}" if near else f"known here are {names}"
    return f"unknown key {str(key)!r:.60}; {hint}"


def _apply(keys: Mapping[str, _Entry], names: Iterable[str]) -> dict[str, object]:
    """The values of those of `names` that were given."""
    return {name: _READ[name](keys[name].raw, keys[name].label) for name in names if name in keys}


def _passes(keys: Mapping[str, _Entry], file: str) -> tuple[dict[str, object], ...]:
    shared = _apply(keys, _PASS)
    kind = _apply(keys, ("pipeline_type",)).get("pipeline_type")
    sections = [name for name in _SECTIONS if name in keys]
    if len(sections) == 1:
        missing = next(name for name in _SECTIONS if name not in keys)
        raise InputError(f"{file}: {sections[0]} is given without {missing}; give both or neither")
    if sections and kind == "base":
        raise InputError(f"{file}: pipeline_type is base but there are two passes; it must be multi-scale")
    if sections:
        return tuple(_section(keys[name], shared) for name in sections)
    if kind == "multi-scale":
        raise InputError(f"{file}: pipeline_type is multi-scale; it needs first_pass and second_pass")
    return (_consistent(shared, file),) if kind or shared.keys() - {"stochastic"} else ()


def _section(entry: _Entry, shared: Mapping[str, object]) -> dict[str, object]:
    if not isinstance(entry.raw, dict):
        raise _wrong(entry.raw, entry.label, "a block of settings, indented below its name")
    own = _apply(_named(entry.raw, _PASS, entry.label), _PASS)
    return _consistent({**shared, **own}, entry.label)


def _consistent(fields: dict[str, object], where: str) -> dict[str, object]:
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


def _wrong(raw: object, label: str, allowed: str) -> InputError:
    return InputError(f"{label} is {_shown(raw)}; it must be {allowed}")


def _shown(raw: object) -> str:
    """As in the file, and short."""
    if raw is None:
        return "empty"
    if isinstance(raw, bool):
        return str(raw).lower()
    if isinstance(raw, str):
        return f"the text {raw!r:.60}"
    return f"{raw!s:.60}"


def _text(raw: object, label: str) -> str:
    if not isinstance(raw, str):
        raise _wrong(raw, label, "text; put it in quotes")
    return raw


def _switch(raw: object, label: str) -> bool:
    if not isinstance(raw, bool):
        raise _wrong(raw, label, "true or false")
    return raw


def _whole(raw: object, label: str) -> int:
    if type(raw) is not int:
        raise _wrong(raw, label, f"a whole number{_unquoted(raw)}")
    return raw


def _number(raw: object, label: str) -> float:
    if type(raw) not in (int, float):
        raise _wrong(raw, label, f"a number{_unquoted(raw)}")
    value: Any = raw
    if not abs(value) <= sys.float_info.max:  # NaN compares false
        raise _wrong(raw, label, "a finite number")
    return float(value)


def _unquoted(raw: object) -> str:
    """YAML takes for text what is quoted, and 1e-3, which has an exponent but no dot."""
    try:
        float(raw if isinstance(raw, str) else "")
    except ValueError:
        return ""
    return ", without quotes, and with a dot before an exponent as in 1.0e-3"


def _numbers(raw: object, label: str) -> tuple[float, ...]:
    """(n,) with n > 0; one number is a list of one, as in the official pipeline."""
    if not isinstance(raw, list):
        return (_number(raw, label),)
    if not raw:
        raise _wrong(raw, label, "one or more numbers")
    return tuple(_number(value, f"{label}[{i}]") for i, value in enumerate(raw))


def _blocks(raw: object, label: str) -> tuple[tuple[int, ...], ...]:
    """Block numbers, (n) lists of any length. [19] is one list for all steps, and so is []."""
    if not isinstance(raw, list):
        raise _wrong(raw, label, "a list of block numbers such as [19], or a list of such lists")
    nested = [isinstance(part, list) for part in raw]
    if any(nested) and not all(nested):
        raise _wrong(raw, label, "block numbers only, or lists of block numbers only")
    if not any(nested):
        return (_block_numbers(raw, label),)
    return tuple(_block_numbers(part, f"{label}[{i}]") for i, part in enumerate(raw))


def _block_numbers(raw: list[object], label: str) -> tuple[int, ...]:
    return tuple(_whole(value, f"{label}[{i}]") for i, value in enumerate(raw))


def _choice(raw: object, label: str, known: Mapping[str, str | None]) -> str | None:
    """What the file's word stands for; case and dashes do not matter."""
    word = raw.lower().replace("-", "_") if isinstance(raw, str) else ""
    if word not in known:
        raise _wrong(raw, label, f"one of {', '.join(known)}")
    return known[word]


def _stg_mode(raw: object, label: str) -> str | None:
    if isinstance(raw, str) and raw.lower() in ("residual", "stg_r"):
        raise InputError(
            f"{label} is {_shown(raw)}, which has no effect in the official pipeline; give "
            f"{', '.join(sorted(set(_STG_MODES.values())))}, or stg_scale 0"
        )
    return _choice(raw, label, _STG_MODES)


_STG_MODES = {
    "attention_values": "attention_values",
    "stg_av": "attention_values",
    "attention_skip": "attention_skip",
    "stg_as": "attention_skip",
    "transformer_block": "transformer_block",
    "stg_t": "transformer_block",
}
_SAMPLERS = {"from_checkpoint": None, "uniform": "uniform", "linear_quadratic": "linear_quadratic"}
_PIPELINES = {"base": "base", "multi_scale": "multi-scale"}

_VALUES: dict[str, Read] = {
    "prompt": _text,
    "negative_prompt": _text,
    "height": _whole,
    "width": _whole,
    "num_frames": _whole,
    "frame_rate": _number,
    "seed": _whole,
    "decode_timestep": _number,
    "decode_noise_scale": _number,
    "image_noise_scale": _number,
    "max_tokens": _whole,
    "reference": _text,
    "downscale_factor": _number,
    "stochastic": _switch,
}
_PASS: dict[str, Read] = {
    "steps": _whole,
    "timesteps": _numbers,
    "skip_initial": _whole,
    "skip_final": _whole,
    "guidance_scale": _numbers,
    "stg_scale": _numbers,
    "rescaling_scale": _numbers,
    "guidance_timesteps": lambda raw, label: None if raw is None else _numbers(raw, label),
    "skip_block_list": _blocks,
    "stg_mode": _stg_mode,
    "cfg_star": _switch,
    "tone_map": _number,
    "stochastic": _switch,
}
_FILE: dict[str, Read] = {
    "sampler": lambda raw, label: _choice(raw, label, _SAMPLERS),
    "pipeline_type": lambda raw, label: _choice(raw, label, _PIPELINES),
}
_SECTIONS = ("first_pass", "second_pass")
_READ: dict[str, Read] = {**_VALUES, **_PASS, **_FILE}

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
_TOP = (*_READ, *_SECTIONS, *_IGNORED)

# The official name of a field, where it is another than ours.
_ALIASES = {
    "image_cond_noise_scale": "image_noise_scale",
    "stochastic_sampling": "stochastic",
    "num_inference_steps": "steps",
    "skip_initial_inference_steps": "skip_initial",
    "skip_final_inference_steps": "skip_final",
    "cfg_star_rescale": "cfg_star",
    "tone_map_compression_ratio": "tone_map",
}


def _load(path: Path) -> dict[Any, object]:
    """The file's top level, whose lists and blocks hold each key once and no surprises of YAML's."""
    import yaml  # type: ignore[import-untyped]

    text = _read_text(path)
    try:
        _check_events(yaml.parse(text, Loader=yaml.SafeLoader), path)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        _check_node(node, path)
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" at line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or getattr(error, "reason", "unreadable")
        raise InputError(f"{path} is not valid YAML{line}: {problem}") from error
    if not isinstance(data, dict) or not data:
        given = f"holds {_shown(data)}" if data else "is empty"
        raise InputError(f"{path} {given}; it must hold lines such as 'steps: 20'")
    return data


def _read_text(path: Path) -> str:
    try:
        if not path.is_file():
            raise InputError(f"settings file {path} is not there or not a regular file; give a YAML file")
        with path.open("rb") as file:
            data = file.read(SIZE_LIMIT + 1)
    except OSError as error:
        raise InputError(f"settings file {path} cannot be read: {error.strerror}") from error
    if len(data) > SIZE_LIMIT:
        raise InputError(f"{path} has more than {SIZE_LIMIT} bytes; that is no settings file")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text at byte {error.start}; save it as UTF-8") from error


def _check_events(events: Iterable[Any], path: Path) -> None:
    """Refuse, while nothing is built yet, what can grow without bounds or is no plain value."""
    depth = 0
    for count, event in enumerate(events):
        kind = type(event).__name__
        depth += kind in ("MappingStartEvent", "SequenceStartEvent")
        depth -= kind in ("MappingEndEvent", "SequenceEndEvent")
        problem = ""
        if getattr(event, "anchor", None) is not None:
            problem = "anchors and aliases (& and *) are not read; repeat the value"
        elif getattr(event, "tag", None) is not None:
            problem = f"tag {event.tag!r:.60} is not read; give the plain value"
        elif depth > DEPTH_LIMIT or count > EVENT_LIMIT:
            problem = (
                f"nested deeper than {DEPTH_LIMIT}, or over {EVENT_LIMIT} values; that is no settings file"
            )
        if problem:
            raise InputError(f"{path}, line {event.start_mark.line + 1}: {problem}")


def _check_node(node: Any, path: Path) -> None:
    """Refuse keys given twice, of which YAML takes the last, and numbers that are not what they look like."""
    kind = type(node).__name__
    if kind == "MappingNode":
        _check_keys([key for key, _ in node.value], path)
        for pair in node.value:
            _check_scalar(pair[0], path)
            _check_node(pair[1], path)
    elif kind == "SequenceNode":
        for value in node.value:
            _check_node(value, path)
    elif node is not None:
        _check_scalar(node, path)


def _check_keys(keys: list[Any], path: Path) -> None:
    seen: set[str] = set()
    for key in keys:
        line = key.start_mark.line + 1
        if type(key).__name__ != "ScalarNode" or key.tag.endswith((":merge", ":value", ":timestamp")):
            raise InputError(f"{path}, line {line}: a key must be the name of a setting, as in 'steps: 20'")
        if key.value in seen:
            raise InputError(f"{path}, line {line}: {key.value!r:.60} is given twice; give it once")
        seen.add(key.value)


def _check_scalar(node: Any, path: Path) -> None:
    """YAML reads 0100 as 64, 1:30 as 90, dates as dates; Python reads no thousands of digits."""
    line, tag = node.start_mark.line + 1, node.tag.rpartition(":")[2]
    odd_number = tag in ("int", "float") and re.search(r"[_:xb]|^[-+]?0\d", node.value)
    if odd_number or tag == "timestamp" or (tag == "int" and len(node.value) > 4000):
        raise InputError(
            f"{path}, line {line}: {node.value:.60} is not a plain decimal number; "
            "write digits with at most one dot, or quotes around text"
        )
