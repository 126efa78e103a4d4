"""The settings of a request that makes a video again, from what the video says of itself.

Where the same frames cannot be expected, a note says why.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from ltxrt.engines.backend import BACKENDS, needs_gpu
from ltxrt.engines.bundle import Bundle
from ltxrt.engines.errors import setting
from ltxrt.engines.host import physical_cores
from ltxrt.engines.verification import identity
from ltxrt.runtime.engine_pool import Engines
from ltxrt.runtime.families import family
from ltxrt.runtime.request import Request, json_form, sources
from ltxrt.runtime.request.record import Record

# Who chooses one of these anew wants what the bundle makes of it, not what the video had.
_CHOOSE_MORE = {"preset", "reference", "two_passes"}


def fields(
    made: Record, bundle: Bundle, given: Collection[str], folders: Sequence[Path] = ()
) -> tuple[dict[str, Any], list[str]]:
    """The request's fields, but for the files that are `given` otherwise, and notes.

    Files are looked for beside the video, in the current folder and in `folders`. Raises InputError for one
    that is in none of them.
    """
    data, pinned = dict(made.request), dict[str, Any]()
    if not _CHOOSE_MORE & set(given):
        if data.get("preset", "default") in bundle.presets:
            request = Request(**json_form.given(data))
            pinned = made.pinned(family(bundle.family).completed_by(bundle, request))
        else:
            pinned = {name: value for name, value in made.completed.items() if name not in data}
            for settings in (data, pinned):
                settings.pop("preset", None)
    values = json_form.given({**data, **pinned})
    found = sources.fields(made, sources.folders(made, folders), given)
    named = ", ".join(map(setting, pinned))
    changed = f"note: the bundle's presets are not those that {made.file} was made with; its own values are"
    return {**values, **found}, [f"{changed} taken of {named}"] if pinned else []


def threads(made: Record) -> int | None:
    """As many threads as then, which decide the order of sums; None where the default is as many."""
    return made.cores if made.threads is None and made.cores != physical_cores() else made.threads


def other_weights(made: Record, bundle: Bundle, precisions: Mapping[str, str]) -> list[str]:
    """A note on components whose weights are not the video's, of those that run in its precision."""
    other = []
    for component, wanted in made.weights.items():
        precision = made.precisions[component]
        graph = bundle.components.get(component, {}).get(precision)
        if precision == precisions.get(component, precision) and graph and identity(graph) != wanted:
            other.append(component)
    if not other:
        return []
    what = f"{made.file} was made with other weights of {', '.join(other)}"
    return [f"note: {what}; this will be another video"]


def other_engines(made: Record, engines: Engines, precisions: Mapping[str, str]) -> list[str]:
    """A note on what runs otherwise than it did for the video: backend, precisions, threads."""
    differ = [f"{setting('backend')} {made.backend}"] if engines.backend != made.backend else []
    differ += [
        f"{setting('precision')} {component}={precision}"
        for component, precision in made.precisions.items()
        if precisions.get(component, precision) != precision
    ]
    then, now = made.threads or made.cores, engines.threads or physical_cores()
    on_gpu = engines.backend in BACKENDS and needs_gpu(engines.backend)
    if then is not None and then != now and not on_gpu:
        differ.append(f"{setting('threads')} {then}")
    if not differ:
        return []
    return [f"note: {made.file} was made with {', '.join(differ)}; otherwise pixels differ a little"]
