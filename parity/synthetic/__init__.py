"""Checkpoints with random weights in the real file layouts, for tests and dry runs."""
