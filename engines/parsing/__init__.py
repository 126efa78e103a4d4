"""Strict, bounded readers of files that somebody else wrote: JSON, graphs, tokenizers, text."""
