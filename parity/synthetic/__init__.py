"""Checkpoints of random weights in the real file layouts, for tests and dry runs."""
