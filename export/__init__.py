"""How a checkpoint becomes ONNX graphs and a bundle. The package where torch is used.

    from ltxrt.export import Plan, export_bundle, open_checkpoint

    checkpoint = open_checkpoint("ltx-video-2b-v0.9.5.safetensors", text_encoder="t5")
    export_bundle(Plan(checkpoint, Path("bundle"), {"transformer": "fp16"}))

A model family is a folder beside `checkpoint` and `graph`, and a row of `families.FAMILIES`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ltxrt.engines.public import lazy

if TYPE_CHECKING:
    from ltxrt.export.families import open_checkpoint
    from ltxrt.export.inspect.checkpoint import describe
    from ltxrt.export.write import Plan, export_bundle

__all__ = ["Plan", "describe", "export_bundle", "open_checkpoint"]

_HOME = {
    "Plan": "write",
    "describe": "inspect.checkpoint",
    "export_bundle": "write",
    "open_checkpoint": "families",
}

# Loaded when first asked for: `ltx-export --help` must not import torch.
__getattr__ = lazy(__name__, _HOME)
