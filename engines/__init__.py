"""What an engine is, what goes in and out of it, how it is cached, loaded and called.

Knows tensors and files. Knows nothing of prompts, videos, checkpoints or torch.
"""
