"""The first half hour on a GPU: what could not be seen without one, in parts that each run by themselves."""

from ltxrt.parity.gpu.cli import main

__all__ = ["main"]
