"""Which products of LTX-Video's transformer may be FP8: projections of attention and feed-forward."""

from __future__ import annotations

import re

from ltxrt.export.graph.fp8 import Layout


def outer_blocks(layers: int) -> int:
    """How many blocks at either end are not quantised: 3 of 48, 2 of 28; they cause most of the error."""
    return max(1, round(layers / 16))


LAYOUT = Layout(
    weight=re.compile(
        r"transformer_blocks\.(\d+)\.(?:attn[12]\.to_(?:q|k|v|out\.0)|ff\.net\.(?:0\.proj|2))\.weight"
    ),
    # Cross-attention is short and stays as it is.
    values=re.compile(r"(transformer_blocks\.(\d+)\.attn1)\.to_v\.weight"),
    outer=outer_blocks,
)
