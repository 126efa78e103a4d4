"""LTX-Video: the stages from a prompt to frames."""

from ltxrt.engines.public import public

__all__, __getattr__ = public(
    __name__,
    "decode guidance",
    costs="expected_seconds timing_key",
    estimate="explain shortage",
    pipeline="Pipeline",
    plan="notes",
    prompt="Tokenizer",
    provenance="completed_by metadata",
    results="Event Watch",
    settings="complete",
)
