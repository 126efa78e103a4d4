"""Images and videos: what a request gives is read and prepared, what it makes is written.

Public are the names below; they are loaded when they are first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ltxrt.engines.public import lazy

if TYPE_CHECKING:
    from ltxrt.runtime.media.condition import Condition
    from ltxrt.runtime.media.formats.reading import read_metadata, read_video
    from ltxrt.runtime.media.write import Encoding, VideoWriter, save_strip

__all__ = ["Condition", "Encoding", "VideoWriter", "read_metadata", "read_video", "save_strip"]

# Loaded when first asked for: `ltx-run --help` must not import NumPy.
__getattr__ = lazy(
    __name__,
    {
        "Condition": "condition",
        "Encoding": "formats.encoding",
        "VideoWriter": "write",
        "read_metadata": "formats.reading",
        "read_video": "formats.reading",
        "save_strip": "write",
    },
)
