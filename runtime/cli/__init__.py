"""The command `ltx-run`: makes video files. Heavy packages are imported after the options are parsed."""

from ltxrt.engines.public import public

__all__, __getattr__ = public(__name__, command="main")
