"""The metadata of a video: all that decides its pixels, as texts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ltxrt.engines import backend as backends
from ltxrt.engines.bundle import Bundle
from ltxrt.engines.errors import BundleError, LtxrtError
from ltxrt.engines.host import package_version, physical_cores
from ltxrt.engines.parsing.text import printable
from ltxrt.engines.verification import identity
from ltxrt.runtime.engine_pool import Engines
from ltxrt.runtime.ltxv.plan import Plan
from ltxrt.runtime.ltxv.settings import PASS_FIELDS, Settings, complete, runnable
from ltxrt.runtime.request import json_form, kinds, record
from ltxrt.runtime.request.fields import OF_A_PASS, SETTINGS
from ltxrt.runtime.request.request import Request


def metadata(plan: Plan, engines: Engines, inputs: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Names and texts for the metadata of the video that `plan` makes on `engines`.

    `inputs` is what `request.provenance.inputs` returned. A seed makes the same video again where all of them
    are equal but `software` and `bundle`.
    """
    settings, bundle = plan.settings, engines.bundle
    preset, request = settings.preset, settings.request
    recorded = [name for name, row in SETTINGS.items() if row.recorded]
    values = {name: getattr(preset if hasattr(preset, name) else request, name) for name in recorded}
    values["noise_layout"] = "official" if settings.reference.token_noise else "diffusers"
    values["preparation"] = request.preparation or settings.reference.preparation
    graphs = {
        name: {"precision": precision, "sha256": identity(bundle.components[name][precision])}
        for name, precision in plan.precisions.items()
    }
    parts = completed(settings), inputs, graphs, _ran(engines)
    return {
        record.KEY: record.document(request, *parts),
        "prompt": request.prompt,
        "negative_prompt": preset.negative_prompt if settings.guided else "",
        "seed": str(request.seed),
        "bundle": printable(bundle.root.resolve().name),
        "model": bundle.version,
        "preset": request.preset,
        "passes": json.dumps([vars(one) for one in preset.passes]),
        "settings": json.dumps(values, sort_keys=True),
        "reference": request.reference,
        "given": json.dumps(list(inputs)),
        "components": json.dumps(graphs),
        "backend": json.dumps({"name": engines.backend, "threads": engines.threads}),
        # A tree that was never installed has no version.
        "software": f"ltxrt {package_version('ltxrt') or 'of an unknown version'}",
    }


def completed_by(bundle: Bundle, request: Request) -> dict[str, Any]:
    """Every setting's value that `request` has with the bundle's presets, by name, as JSON.

    Raises InputError for a request that the bundle cannot complete.
    """
    if bundle.facts.vae is None:
        raise BundleError(f"{bundle.root}: says nothing of its VAE")
    return completed(complete(runnable(request, bundle), bundle.presets, bundle.facts.vae))


def completed(settings: Settings) -> dict[str, Any]:
    """Every setting's value by its name, as JSON; not the files, nor what is left to the weights."""
    preset, request = settings.preset, settings.request
    first, *second = preset.passes
    values = {
        name: getattr(next(one for one in (preset, first, request) if hasattr(one, name)), name)
        for name, row in SETTINGS.items()
        if row.kind not in (kinds.FILE, kinds.CONDITIONS, kinds.GROUP)
    }
    values |= {"two_passes": bool(second), **_of_pass(first)}
    values["noise_layout"] = "official" if settings.reference.token_noise else "diffusers"
    values["preparation"] = request.preparation or settings.reference.preparation
    if second:
        values["second_pass"] = _of_pass(second[0])
    return {name: json_form.plain(name, value) for name, value in values.items() if value is not None}


def _of_pass(one: Any) -> dict[str, Any]:
    """A pass's settings: its steps are either counted or listed, and no guidance timesteps are ()."""
    values = {name: getattr(one, name) for name in PASS_FIELDS if name in OF_A_PASS}
    values["steps"] = None if one.timesteps else one.steps
    return {**values, "guidance_timesteps": one.guidance_timesteps or ()}


def _ran(engines: Engines) -> dict[str, Any]:
    """What ran the graphs: sums are rounded in another order by another backend, version or processor."""
    try:
        place = backends.available(engines.backend, engines.device)
    except LtxrtError:  # engines that are not a backend's: tests', or a server's
        place = ""
    names = [one.distribution for one in backends.packages(engines.backend)] if place else []
    versions = {name: version for name in names if (version := package_version(name))}
    return {
        "backend": engines.backend,
        "threads": engines.threads,
        "cores": physical_cores(),
        "many_calls": engines.keep_loaded is True,
        "place": printable(place),
        "packages": versions,
    }
