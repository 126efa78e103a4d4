"""What a user asks for: the table of settings, the ways in which they are given, and the request they make.

Public are `Request`, `complete` and `Settings` here; `json_form` reads and writes requests as JSON.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ltxrt.runtime.request.request import Request, Settings, complete

__all__ = ["Request", "Settings", "complete"]


def __getattr__(name: str) -> Any:
    """Load a part when it is first asked for: `ltx-run --help` must not import NumPy."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.request"), name)
