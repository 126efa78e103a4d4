"""Checkpoints with random weights in the real file layouts, for tests and dry runs."""

from ltxrt.engines.public import public

__all__, __getattr__ = public(
    __name__,
    "checkpoint models picture",
    tokenizer="write_tokenizer",
)
