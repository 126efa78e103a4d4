"""How the engines of LTX-Video are verified."""

from ltxrt.engines.public import public

__all__, __getattr__ = public(__name__, "diffusers")
