"""Checks that need an NVIDIA GPU, in parts that run independently of each other (docs/gpu.md)."""

from ltxrt.parity.gpu.cli import main

__all__ = ["main"]
