"""LTX-Video: the stages from a prompt to frames."""
