"""Hostile input by the hundred thousand: seeded, bounded and counted (`python -m ltxrt.parity.fuzz`)."""
