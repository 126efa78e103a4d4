"""Text from outside: the numbers in it, and as much of it as a message may repeat. Standard library only."""

from __future__ import annotations

import re

LIMIT = 80  # characters of what was given that a message repeats
DIGITS = 20  # of the largest whole number that any setting takes, 2**64 − 1

_WHOLE = re.compile(r"[+-]?[0-9]+")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|[+-]?(?:inf|nan)", re.IGNORECASE)


def whole(text: str) -> int:
    """A whole number of up to 20 decimal digits; ValueError for all else that `int` reads.

    `int` also takes other scripts' digits and underscores, and has a limit of its own at 4300 digits.
    """
    stripped = text.strip(" ")
    if not _WHOLE.fullmatch(stripped) or len(stripped.lstrip("+-0")) > DIGITS:
        raise ValueError(f"{quoted(text)} is no whole number of up to {DIGITS} digits")
    return int(stripped)


def number(text: str) -> float:
    """A decimal number, nan or inf; ValueError for all else that `float` reads."""
    if not _NUMBER.fullmatch(text.strip(" ")):
        raise ValueError(f"{quoted(text)} is no decimal number")
    return float(text)


def quoted(value: object, limit: int = LIMIT) -> str:
    """Text in quotes, and other values as Python writes them, printable; what is over `limit` is cut."""
    if isinstance(value, int) and abs(value) >= 10**limit:
        return f"a number of more than {limit} digits"
    if isinstance(value, str):
        cut = value[:limit]
        mark = '"' if "'" in cut else "'"
        return f"{mark}{printable(cut)}{mark}{'' if cut == value else '…'}"
    return clipped(printable(repr(value)), limit)


def printable(text: str) -> str:
    """`text` with what a terminal may obey, and bytes that are no UTF-8, written as escapes; spaces stay."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escaped(c) for c in text)


def clipped(text: str, limit: int) -> str:
    """`text`, its middle left out where it is longer than `limit`."""
    if len(text) <= limit:
        return text
    half = (limit - 1) // 2
    return f"{text[:half]}…{text[len(text) - half :]}"


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # how Python keeps a byte of a name or an argument that is no UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape", "backslashreplace").decode("ascii")
