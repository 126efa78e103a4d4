"""The references that engines are compared with: our modules in torch, and diffusers."""

from ltxrt.engines.public import public

__all__, __getattr__ = public(__name__, "diffusers torch")
