"""The metadata of a video: all that decides its pixels, as texts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ltxrt.engines.host import package_version
from ltxrt.engines.parsing.text import printable
from ltxrt.engines.verification import identity
from ltxrt.runtime.engine_pool import Engines
from ltxrt.runtime.ltxv.plan import Plan
from ltxrt.runtime.request.fields import SETTINGS


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
    return {
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
