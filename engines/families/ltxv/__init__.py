"""LTX-Video: its facts and its components' tensor contracts."""
