"""Hostile input by the hundred thousand: seeded, bounded and counted (`python -m ltxrt.parity.fuzz`)."""

from ltxrt.parity.fuzz.command import main

__all__ = ["main"]
