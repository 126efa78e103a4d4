"""Strict, bounded readers of untrusted files: JSON, graphs, tokenizers, text."""
