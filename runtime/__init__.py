"""How a prompt becomes a video, given engines. NumPy only: no torch, no transformers.

`from ltxrt.runtime import Pipeline, Request` is the library; the modules are its parts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ltxrt.engines.public import lazy

if TYPE_CHECKING:
    from ltxrt.runtime.engine_pool import EnginePool
    from ltxrt.runtime.ltxv.pipeline import Pipeline
    from ltxrt.runtime.ltxv.results import Event, Stream
    from ltxrt.runtime.media.condition import Condition
    from ltxrt.runtime.request.request import Request
    from ltxrt.runtime.video import Video

__all__ = ["Condition", "EnginePool", "Event", "Pipeline", "Request", "Stream", "Video"]

_HOME = {
    "Condition": "media.condition",
    "EnginePool": "engine_pool",
    "Event": "ltxv.results",
    "Pipeline": "ltxv.pipeline",
    "Request": "request.request",
    "Stream": "ltxv.results",
    "Video": "video",
}

# Loaded when first asked for: `ltx-run --help` must not import NumPy.
__getattr__ = lazy(__name__, _HOME)
