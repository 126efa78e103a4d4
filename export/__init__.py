"""How a checkpoint becomes ONNX graphs and a bundle. The package where torch is used.

    from ltxrt.export import Plan, export_bundle, open_checkpoint

    checkpoint = open_checkpoint("ltx-video-2b-v0.9.5.safetensors", text_encoder="t5")
    export_bundle(Plan(checkpoint, Path("bundle"), {"transformer": "fp16"}), listener)

A model family is a folder beside `checkpoint` and `graph`, and a row of `families.FAMILIES`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ltxrt.export.families import open_checkpoint
    from ltxrt.export.inspect import describe
    from ltxrt.export.write import Plan, export_bundle

__all__ = ["Plan", "describe", "export_bundle", "open_checkpoint"]

_HOME = {"Plan": "write", "describe": "inspect", "export_bundle": "write", "open_checkpoint": "families"}


def __getattr__(name: str) -> Any:
    """Load a part when it is first asked for: `ltx-export --help` must not import torch."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
