"""The autoencoder in tiles."""

from ltxrt.engines.public import public

__all__, __getattr__ = public(__name__, "tiling")
