"""Which known name somebody meant who wrote one that does not exist."""

from __future__ import annotations

from collections.abc import Iterable


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The name that is `word` but for case and hyphens, or begins so, or differs by a few letters."""
    names = {_plain(name): name for name in known}
    plain = _plain(word[:100])
    if plain in names:
        return names[plain]
    beginnings = [name for short, name in names.items() if len(plain) > 2 and short.startswith(plain)]
    if len(beginnings) == 1:
        return beginnings[0]
    from difflib import get_close_matches

    found = get_close_matches(plain, names, 1)
    return names[found[0]] if found else None


def _plain(name: str) -> str:
    return name.lower().replace("_", "-").replace(" ", "-")
