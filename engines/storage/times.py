"""How long stages took on this machine: a small file in the user's cache folder.

Under a key, which names all that times depend on but the size of the work, it has for each stage the seconds
measured by the seconds that were expected; expectations follow the size. The file is a hint: one that cannot
be read or written is no error.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

from ltxrt.engines.errors import InputError
from ltxrt.engines.parsing import json_input
from ltxrt.engines.storage.files import atomic_write, cache_folder, read_small

SCHEMA = 1
LIMIT = 1 << 18  # bytes of the file
KEYS = 50  # kept, the latest
STAGES = 32  # of a key
_RECENT = 0.5  # how much of a noted ratio the latest measurement is
_BOUNDS = (1e-4, 1e4)

Ratios = dict[str, float]


def place() -> Path:
    """The file. RuntimeError where the user has no home folder."""
    return cache_folder() / "times.json"


def measured(key: str) -> Ratios:
    """Stage → measured by expected seconds, of earlier runs under `key`; empty if there was none."""
    return _read().get(key, {})


def note(key: str, ratios: Mapping[str, float]) -> None:
    """Note the ratios of a run that has ended, mixed with those known."""
    known = _read()
    before = known.pop(key, {})
    usable = {stage: ratio for stage, ratio in ratios.items() if _BOUNDS[0] <= ratio <= _BOUNDS[1]}
    mixed = {s: ratio + (before.get(s, ratio) - ratio) * (1 - _RECENT) for s, ratio in usable.items()}
    if not mixed:
        return
    known[key] = dict(list({**before, **mixed}.items())[-STAGES:])
    latest = dict(list(known.items())[-KEYS:])
    try:
        path = place()
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path, flush=False) as temporary:  # a hint: nobody waits for the disk
            temporary.write_text(json.dumps({"schema": SCHEMA, "measured": latest}), encoding="utf-8")
    except (OSError, RuntimeError, InputError):
        return


def _read() -> dict[str, Ratios]:
    try:
        data = json_input.parse(read_small(place(), LIMIT))
        if data["schema"] != SCHEMA:
            return {}
        return {str(key): _valid(ratios) for key, ratios in list(data["measured"].items())[-KEYS:]}
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _valid(ratios: Mapping[str, float]) -> Ratios:
    if not all(type(r) in (int, float) and math.isfinite(r) and r > 0 for r in ratios.values()):
        raise ValueError("not a measurement")
    return {str(stage): float(ratio) for stage, ratio in list(ratios.items())[-STAGES:]}
