"""Images and videos: what a request gives is read and prepared, what it makes is written.

Public are the names below; they are loaded when they are first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ltxrt.runtime.media.read import Condition
    from ltxrt.runtime.media.write import VideoWriter, read_metadata, read_video, save_strip

__all__ = ["Condition", "VideoWriter", "read_metadata", "read_video", "save_strip"]


def __getattr__(name: str) -> Any:
    """Load a part when it is first asked for: `ltx-run --help` must not import NumPy."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = "read" if name == "Condition" else "write"
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)
