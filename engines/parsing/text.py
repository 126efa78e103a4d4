"""Untrusted text: parsing numbers in it, and quoting it in messages. Standard library only."""

from __future__ import annotations

import re

LIMIT = 80  # characters of an input that a message quotes
DIGITS = 20  # digits of the largest integer that any setting takes, 2**64 − 1

_WHOLE = re.compile(r"[+-]?[0-9]+")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|[+-]?(?:inf|nan)", re.IGNORECASE)


def whole(text: str) -> int:
    """An integer of up to 20 decimal digits; ValueError for everything else that `int` accepts.

    `int` also accepts other scripts' digits and underscores, and has its own limit of 4300 digits.
    """
    stripped = text.strip(" ")
    if not _WHOLE.fullmatch(stripped) or len(stripped.lstrip("+-0")) > DIGITS:
        raise ValueError(f"{quoted(text)} is not a whole number of up to {DIGITS} digits")
    return int(stripped)


def number(text: str) -> float:
    """A decimal number, nan or inf; ValueError for everything else that `float` accepts."""
    if not _NUMBER.fullmatch(text.strip(" ")):
        raise ValueError(f"{quoted(text)} is not a decimal number")
    return float(text)


def quoted(value: object, limit: int = LIMIT) -> str:
    """Printable text in quotes, or another value's repr, truncated to `limit` characters."""
    if isinstance(value, int) and abs(value) >= 10**limit:
        return f"a number of more than {limit} digits"
    if isinstance(value, str):
        cut = value[:limit]
        mark = '"' if "'" in cut else "'"
        return f"{mark}{printable(cut)}{mark}{'' if cut == value else '…'}"
    return clipped(printable(repr(value)), limit)


def printable(text: str) -> str:
    """`text` with control characters and bytes that are not UTF-8 as escapes; spaces are kept."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escaped(c) for c in text)


def clipped(text: str, limit: int) -> str:
    """`text`, with its middle omitted if it is longer than `limit`."""
    if len(text) <= limit:
        return text
    half = (limit - 1) // 2
    return f"{text[:half]}…{text[len(text) - half :]}"


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # how Python keeps a byte that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape", "backslashreplace").decode("ascii")
