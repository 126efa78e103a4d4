"""The torch modules that are traced: compact, with the official checkpoint's parameter names."""

from ltxrt.engines.public import public

__all__, __getattr__ = public(__name__, "preview t5 transformer upsampler vae")
