"""Fuzzing of every reader of untrusted input, seeded and bounded (`python -m ltxrt.parity.fuzz`)."""

from ltxrt.parity.fuzz.command import main

__all__ = ["main"]
