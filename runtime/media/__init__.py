"""Images and videos: what a request gives is read and prepared, what it makes is written.

Public are the names below; they are loaded when they are first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ltxrt.engines.public import lazy

if TYPE_CHECKING:
    from ltxrt.runtime.media.read import Condition
    from ltxrt.runtime.media.write import Encoding, VideoWriter, read_metadata, read_video, save_strip

__all__ = ["Condition", "Encoding", "VideoWriter", "read_metadata", "read_video", "save_strip"]

# Loaded when first asked for: `ltx-run --help` must not import NumPy.
__getattr__ = lazy(__name__, {name: "read" if name == "Condition" else "write" for name in __all__})
