"""What a planned run of LTX-Video would do and take, before anything is loaded."""

from ltxrt.engines.public import public

__all__, __getattr__ = public(__name__, explanation="Explanation explain shortage")
