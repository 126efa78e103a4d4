"""What a request was given: files and arrays, by which a video's metadata names them.

Names are without folders: a video does not tell where its maker keeps files.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, cast

import numpy as np

from ltxrt.engines.parsing.text import printable
from ltxrt.engines.storage.files import sha256
from ltxrt.runtime.media.given import Kept
from ltxrt.runtime.request.request import Request


def inputs(request: Request) -> list[dict[str, Any]]:
    """Each image, video and noise that is given: what it is for, name, SHA-256, bytes, place and strength.

    Read before the work, so that later changes to a file do not matter. An array's hash is of its bytes; a
    file that cannot be read has none, and is for the pipeline to refuse.
    """
    rows: list[dict[str, Any]] = []
    if (image := cast(Kept | None, request.image)) is not None:
        rows.append({"for": "image", **_hashed(image), "strength": request.image_strength})
    for one in request.conditions:
        rows.append({"for": "condition", **_hashed(one.source), "frame": one.frame, "strength": one.strength})
    for name in ("input_video", "noise"):
        if (source := getattr(request, name)) is not None:
            rows.append({"for": name, **_hashed(source)})
    return rows


def _hashed(source: Kept) -> dict[str, Any]:
    if isinstance(source, np.ndarray):
        digest = hashlib.sha256(np.ascontiguousarray(source).tobytes()).hexdigest()
        return {"name": f"array {source.dtype} {source.shape}", "sha256": digest, "bytes": None}
    path = Path(source)
    try:
        found, size = (sha256(path), path.stat().st_size) if path.is_file() else (None, None)
    except (OSError, ValueError):  # ValueError: a name with a NUL
        found = size = None
    return {"name": printable(path.name), "sha256": found, "bytes": size}
