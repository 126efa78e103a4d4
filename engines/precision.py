"""The precisions that components are exported in, and how people write a choice of them."""

from __future__ import annotations

from collections.abc import Collection

from ltxrt.engines.errors import InputError, setting
from ltxrt.engines.parsing.text import quoted

PLAIN = ("fp32", "fp16", "bf16")
QUANTISED = ("fp8", "fp8-fp16")  # of the components that have it; FP8 over bf16 or fp16
PRECISIONS = (*PLAIN, *QUANTISED)
WEIGHT_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2, "fp8": 1, "fp8-fp16": 1}  # of most weights


def parse(text: str, components: Collection[str]) -> dict[str, str]:
    """Component → precision: `fp16` for all `components`, `transformer=fp16,vae_decoder=fp32` for some.

    Raises InputError for a component that is not one of them, or that is named twice.
    """
    if "=" not in text:
        return dict.fromkeys(components, text)
    label, pairs = setting("precision"), [item.partition("=")[::2] for item in text.split(",")]
    for name, _ in pairs:
        if name not in components:
            raise InputError(f"{label} names {quoted(name)}; components are {', '.join(components)}")
    if len(dict(pairs)) < len(pairs):
        raise InputError(f"{label} {quoted(text)}: names a component twice; give each one precision")
    return dict(pairs)
