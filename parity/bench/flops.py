"""Multiply-adds of a transformer call's matrix part, counted exactly; twice as many are floating-point
operations.

Norms, rotation, softmax, GELU and the gathered modulation are not in it.
"""

from __future__ import annotations

from dataclasses import dataclass

from ltxrt.engines.families.ltxv.facts import TransformerFacts

TIME_CHANNELS = 256  # of the sinusoid that the time embedding reads
ROWS = 6  # of the modulation that the time embedding makes


@dataclass(frozen=True)
class Call:
    """The sizes of one call: samples, video tokens, text tokens, distinct timesteps."""

    batch: int
    tokens: int
    text: int
    timesteps: int = 1


def transformer(facts: TransformerFacts, call: Call) -> int:
    """Multiply-adds of one call. The projected text is as wide as the transformer in every release."""
    one = _ends(facts, call) + facts.layers * _block(facts.width, call.tokens, call.text)
    return call.batch * one


def _ends(facts: TransformerFacts, call: Call) -> int:
    """What runs once per call: projection in and out, time embedding, projection of the text."""
    width = facts.width
    patchify = call.tokens * facts.in_channels * width
    out = call.tokens * width * facts.out_channels
    time = call.timesteps * (TIME_CHANNELS * width + width * width + width * ROWS * width)
    caption = call.text * (facts.caption_channels * width + width * width)
    return patchify + out + time + caption


def _block(width: int, tokens: int, text: int) -> int:
    """Self-attention, cross-attention, feed-forward of four times the width."""
    square = width * width
    self_attention = 4 * tokens * square + 2 * tokens * tokens * width
    cross_attention = 2 * tokens * square + 2 * text * square + 2 * tokens * text * width
    return self_attention + cross_attention + 8 * tokens * square
