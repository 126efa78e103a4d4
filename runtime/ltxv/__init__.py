"""LTX-Video: the stages from a prompt to frames."""

from ltxrt.engines.public import public

__all__, __getattr__ = public(
    __name__,
    "decode guidance",
    pipeline="Pipeline",
    plan="PassPlan Plan notes",
    prompt="BEFORE_ALL Tokenizer",
    provenance="completed_by metadata",
    results="Event Watch previewing stage_name",
    settings="complete",
    **{"estimate.costs": "expected_seconds timing_key", "estimate.explanation": "explain shortage"},
)
