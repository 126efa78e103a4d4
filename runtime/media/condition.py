"""An image or a video as a part of the video, as a request has it. Nothing is opened here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from ltxrt.engines.errors import InputError, setting
from ltxrt.engines.parsing.text import LIMIT, clipped, number, quoted, whole
from ltxrt.runtime.media import given

_PLACE = re.compile(r"(?P<path>.+)@(?P<frame>-?[0-9]+)(?::(?P<strength>[^:@/\\]+))?")
# What a typing error leaves behind a file's suffix.
_NO_PLACE = re.compile(r"@(?:[^@/\\.]*|[0-9.:+-]*)$")


@dataclass(frozen=True)
class Condition:
    """An image or a video as part of the video, from `frame` on, with a strength of 0 to 1.

    path: a file, or an image or pixels as in `given.Media`, of which arrays are kept. For messages: `text` is
    what the user wrote, `given_as` the name of the setting. Raises InputError for other types.
    """

    path: given.Media
    frame: int = 0
    strength: float = 1.0
    text: str = ""
    given_as: str = "conditions"

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", given.kept(self.path, setting(self.given_as)))

    def __repr__(self) -> str:
        what = given.shown(self.source)
        where = f", frame={self.frame}" if self.frame else ""
        return f"Condition({what}{where}{f', strength={self.strength}' if self.strength != 1 else ''})"

    @property
    def source(self) -> given.Kept:
        """The file or the array."""
        return cast(given.Kept, self.path)  # `__post_init__` has made it one

    @property
    def label(self) -> str:
        """Its name in messages."""
        what = self.text or ("pixels" if isinstance(self.path, np.ndarray) else self.path)
        return f"{setting(self.given_as)} {what}"


def parse(text: str) -> Condition:
    """`MEDIA[@FRAME[:STRENGTH]]`; a name may contain @ and : as well.

    Raises InputError for a frame that is not a whole number of 0 or more, or a strength outside 0..1.
    """
    label = Condition(text).label
    match = _PLACE.fullmatch(text)
    there = _exists(text)
    if match is None or there:
        if not there and _NO_PLACE.search(text):
            raise InputError(f"{label}: must be MEDIA[@FRAME[:STRENGTH]], as in photo.png@96:0.8")
        return Condition(Path(text), text=text)
    frame, strength = _frame(match["frame"], label), match["strength"]
    if frame < 0:
        raise InputError(f"{label}: frame {frame} must be 0 or more, counted from the video's start")
    return Condition(Path(match["path"]), frame, _strength(strength, label), text)


def _frame(text: str, label: str) -> int:
    try:
        return whole(text)
    except ValueError as error:
        raise InputError(f"{label}: frame {quoted(text)} must be a whole number of 0 or more") from error


def _exists(text: str) -> bool:
    try:
        return Path(text).exists()
    except OSError:  # not a possible name of a file
        return False


def _strength(text: str | None, label: str) -> float:
    try:
        value = 1.0 if text is None else number(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value <= 1.0:
        shown = clipped(text or "", LIMIT)
        raise InputError(f"{label}: strength {shown} must be a number between 0 and 1")
    return value
