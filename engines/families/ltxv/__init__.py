"""LTX-Video: its facts and its components' tensor contracts."""

from ltxrt.engines.public import public

__all__, __getattr__ = public(
    __name__,
    facts="Facts NoiseMaps Pass Preset SchedulerFacts TextEncoderFacts TransformerFacts VaeFacts",
)
