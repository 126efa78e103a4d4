"""How a prompt becomes a video, given engines. NumPy only: no torch, no transformers."""
