"""What a video says of how it was made: all that decides its pixels, as texts for its metadata.

Names are without folders: a video does not tell where its maker keeps files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltxrt.engines.bundle import Bundle
from ltxrt.engines.host import package_version
from ltxrt.engines.parsing.text import printable
from ltxrt.engines.storage.files import sha256
from ltxrt.engines.verification import identity
from ltxrt.runtime.request.fields import SETTINGS
from ltxrt.runtime.request.request import Request, Settings


def given(request: Request) -> list[dict[str, Any]]:
    """Each image, video and noise that is given: what it is for, name, SHA-256, place and strength.

    Read before the work, so that later changes to a file do not matter. An array's hash is of its bytes; a
    file that cannot be read has none, and is for the pipeline to refuse.
    """
    rows: list[dict[str, Any]] = []
    if request.image is not None:
        rows.append({"for": "image", **_hashed(request.image), "strength": request.image_strength})
    for one in request.conditions:
        rows.append({"for": "condition", **_hashed(one.path), "frame": one.frame, "strength": one.strength})
    for name in ("input_video", "noise"):
        if (source := getattr(request, name)) is not None:
            rows.append({"for": name, **_hashed(source)})
    return rows


def metadata(
    settings: Settings,
    bundle: Bundle,
    *,
    backend: str,
    precisions: Mapping[str, str],
    threads: int | None = None,
    inputs: list[dict[str, Any]],
) -> dict[str, str]:
    """Names and texts for a video's metadata: `precisions` is what ran, `inputs` is what `given` returned.

    A seed makes the same video again where all of them are equal but `software` and `bundle`.
    """
    preset, request = settings.preset, settings.request
    recorded = [name for name, row in SETTINGS.items() if row.recorded]
    values = {name: getattr(preset if hasattr(preset, name) else request, name) for name in recorded}
    values["noise_layout"] = "official" if settings.reference.token_noise else "diffusers"
    values["preparation"] = request.preparation or settings.reference.preparation
    graphs = {
        name: {"precision": precision, "sha256": identity(bundle.components[name][precision])}
        for name, precision in precisions.items()
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
        "given": json.dumps(inputs),
        "components": json.dumps(graphs),
        "backend": json.dumps({"name": backend, "threads": threads}),
        # A tree that was never installed has no version.
        "software": f"ltxrt {package_version('ltxrt') or 'of an unknown version'}",
    }


def _hashed(source: Path | str | NDArray[np.float32]) -> dict[str, Any]:
    if isinstance(source, np.ndarray):
        digest = hashlib.sha256(np.ascontiguousarray(source).tobytes()).hexdigest()
        return {"name": f"array {source.dtype} {source.shape}", "sha256": digest}
    path = Path(source)
    try:
        found = sha256(path) if path.is_file() else None
    except (OSError, ValueError):  # ValueError: a name with a NUL
        found = None
    return {"name": printable(path.name), "sha256": found}
