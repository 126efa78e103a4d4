"""How the values of settings are written: as the text of an option, in YAML and JSON, and in Python.

Standard library only. What a text or a file gives is read to what Python holds: tuples for lists, paths for
files.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from ltxrt.engines.errors import InputError, setting
from ltxrt.engines.parsing import text as plain
from ltxrt.engines.parsing.text import quoted

LONGEST_TEXT = 100_000  # characters
LONGEST_LIST = 1000  # entries


@dataclass(frozen=True)
class Kind:
    """One way in which settings are written.

    option: the type of its command-line option, as click takes it; text: the value of such an option's text,
    ValueError where it is none, and `rule` what it must be; data: the value of what YAML or JSON gave, and
    how messages call it; valid: whether Python gave a value, and `what` it must be; json: the value as JSON
    has it; words: those of a choice.
    """

    option: Any
    text: Callable[[str], Any]
    rule: str
    data: Callable[[Any, str], Any]
    valid: Callable[[Any], bool]
    what: str
    json: Callable[[Any], Any] = lambda value: value
    words: tuple[str, ...] = ()

    def from_text(self, name: str, given: str) -> Any:
        """The value that an option's text stands for; InputError about the setting `name` otherwise."""
        try:
            return self.text(given)
        except InputError:
            raise
        except ValueError as error:
            raise InputError(f"{setting(name)} {quoted(given)}: must be {self.rule}") from error


def wrong(raw: object, label: str, allowed: str) -> InputError:
    """That what YAML or JSON gave is no value of the setting that messages call `label`."""
    return InputError(f"{label} is {shown(raw)}; it must be {allowed}")


def shown(raw: object) -> str:
    """What YAML or JSON gave, as it is written there, and short."""
    if raw is None:
        return "empty"
    if isinstance(raw, bool):
        return str(raw).lower()
    if isinstance(raw, str):
        return f"the text {quoted(raw, 60)}"
    return plain.clipped(f"{raw!s}", 60)


def is_whole(value: object) -> bool:
    """Whether it is a whole number, NumPy's among them, and neither True nor False."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_blocks(value: object) -> bool:
    return isinstance(value, list | tuple) and all(
        isinstance(part, list | tuple) and all(map(is_whole, part)) for part in value
    )


def _text(raw: object, label: str) -> str:
    if not isinstance(raw, str):
        raise wrong(raw, label, "text; put it in quotes")
    return raw


def _switch(raw: object, label: str) -> bool:
    if not isinstance(raw, bool):
        raise wrong(raw, label, "true or false")
    return raw


def _whole(raw: object, label: str) -> int:
    if type(raw) is not int:
        raise wrong(raw, label, f"a whole number{_unquoted(raw)}")
    return raw


def _number(raw: object, label: str) -> float:
    if type(raw) not in (int, float):
        raise wrong(raw, label, f"a number{_unquoted(raw)}")
    value: Any = raw
    if not abs(value) <= sys.float_info.max:  # NaN compares false
        raise wrong(raw, label, "a finite number")
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
        raise wrong(raw, label, "one or more numbers")
    return tuple(_number(value, f"{label}[{i}]") for i, value in enumerate(raw))


def _blocks(raw: object, label: str) -> tuple[tuple[int, ...], ...]:
    """Block numbers, (n) lists of any length. [19] is one list for all steps, and so is []."""
    if not isinstance(raw, list):
        raise wrong(raw, label, "a list of block numbers such as [19], or a list of such lists")
    nested = [isinstance(part, list) for part in raw]
    if any(nested) and not all(nested):
        raise wrong(raw, label, "block numbers only, or lists of block numbers only")
    lists = enumerate(raw) if any(nested) else (("", raw),)
    return tuple(
        tuple(
            _whole(value, f"{label}[{i}][{j}]" if any(nested) else f"{label}[{j}]")
            for j, value in enumerate(part)
        )
        for i, part in lists
    )


def _blocks_text(given: str) -> tuple[tuple[int, ...], ...]:
    """`"11,25;22"`: a list for each guidance timestep; `""` is one empty list."""
    lists = (part.split(",") if part.strip() else [] for part in given.split(";"))
    return tuple(tuple(map(plain.whole, numbers)) for numbers in lists)


def _yes_or_no(given: str) -> bool:
    if given not in ("yes", "no"):
        raise ValueError(given)
    return given == "yes"


def _file(raw: object, label: str) -> Path:
    if not isinstance(raw, str) or not raw:
        raise wrong(raw, label, "the name of a file")
    return Path(raw)


def _named(value: object) -> str:
    if not isinstance(value, Path | str):
        raise InputError("an array has no name by which it could be written; give a file")
    return str(value)


def _bytes(given: str) -> int:
    from ltxrt.runtime.vae.tiling import parse_bytes

    try:
        return parse_bytes(given)
    except InputError as error:
        raise ValueError(given) from error


def _memory(raw: object, label: str) -> int:
    if not isinstance(raw, str):
        return _whole(raw, label)
    try:
        return _bytes(raw)
    except ValueError as error:
        raise wrong(raw, label, MEMORY.rule) from error


def _condition_text(given: str) -> Any:
    from ltxrt.runtime.media.condition import parse

    return parse(given)


def _conditions(raw: object, label: str) -> tuple[Any, ...]:
    """Objects of a path, and where they are not 0 and 1, a frame and a strength."""
    from ltxrt.runtime.media.condition import Condition

    readers: dict[str, Callable[[Any, str], Any]] = {"path": _file, "frame": _whole, "strength": _number}
    if not isinstance(raw, list):
        raise wrong(raw, label, "a list of conditions")
    found = []
    for i, one in enumerate(raw):
        if not isinstance(one, dict) or "path" not in one or not readers.keys() >= one.keys():
            raise wrong(one, f"{label}[{i}]", "a path, and may have a frame and a strength")
        found.append(Condition(**{key: readers[key](one[key], f"{label}[{i}].{key}") for key in one}))
    return tuple(found)


def _conditions_to_json(conditions: Any) -> list[dict[str, Any]]:
    return [{"path": _named(c.path), "frame": c.frame, "strength": c.strength} for c in conditions]


def _group(raw: object, label: str) -> dict[Any, Any]:
    if not isinstance(raw, dict):
        raise wrong(raw, label, "a block of settings, indented below its name")
    return raw


TEXT = Kind(str, str, "text", _text, lambda value: isinstance(value, str), "text")
WHOLE = Kind(
    int, plain.whole, f"a whole number of up to {plain.DIGITS} digits", _whole, is_whole, "a whole number"
)
NUMBER = Kind(float, plain.number, "a number", _number, is_number, "a number")
SWITCH = Kind(bool, _yes_or_no, "yes or no", _switch, lambda value: value in (True, False), "True or False")
NUMBERS = Kind(
    str,
    lambda given: tuple(map(plain.number, given.split(","))),
    "numbers with commas, as in 1,0.9875,0.725",
    _numbers,
    lambda value: is_number(value) or (isinstance(value, list | tuple) and all(map(is_number, value))),
    "a number, or several of them",
    lambda value: list(value) if isinstance(value, list | tuple) else value,
)
BLOCKS = Kind(
    str,
    _blocks_text,
    "block numbers with commas, a semicolon between lists, as in 11,25;28, where ;28 begins with an empty "
    "list",
    _blocks,
    _is_blocks,
    "lists of block numbers, as in ((11, 25), (28,))",
    lambda value: [list(part) for part in value],
)
FILE = Kind(Path, Path, "a file", _file, lambda _value: True, "a file or an array", _named)
MEMORY = Kind(
    str,
    _bytes,
    "a positive number of bytes, or one with a unit such as MB or GiB: 4GiB",
    _memory,
    is_whole,
    "a number of bytes",
)
CONDITIONS = Kind(
    str,
    _condition_text,
    "",
    _conditions,
    lambda value: isinstance(value, list | tuple),
    "a list of conditions, as in [Condition('photo.png', frame=96)]",
    _conditions_to_json,
)
GROUP = Kind(str, str, "", _group, lambda value: isinstance(value, Mapping), "settings by their names", dict)


def choice(*words: str, also: Mapping[str, str | None] | None = None, idle: tuple[str, ...] = ()) -> Kind:
    """One of `words`, in any case and with dashes or underscores.

    `also`: other words and what they stand for, None for the setting left open; `idle`: words that the
    official pipeline takes and that have no effect there, which are refused.
    """
    known = {**(also or {}), **{word: word for word in words}}
    meanings = {word.replace("-", "_"): meaning for word, meaning in known.items()}

    def text(given: str) -> str | None:
        return meanings.get(given.lower().replace("-", "_"), given)

    def data(raw: object, label: str) -> str | None:
        if isinstance(raw, str) and raw.lower() in idle:
            why = "has no effect in the official pipeline"
            raise InputError(f"{label} is {shown(raw)}, which {why}; give one of {', '.join(words)}")
        word = text(raw) if isinstance(raw, str) else ""
        if word is not None and word not in words:
            raise wrong(raw, label, f"one of {', '.join(known)}")
        return word

    what = f"one of {', '.join(words)}"
    return Kind(str, text, what, data, lambda value: value in words, what, words=words)
