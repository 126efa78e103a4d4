"""Strict, bounded readers of untrusted files: JSON, graphs, tokenizers, text."""

from ltxrt.engines.public import public

__all__, __getattr__ = public(
    __name__,
    "json_input schema text tokenizer_file",
    graph_check="check_file check_graph",
    near="nearest",
    sizes="check_size nearest_sizes",
    wire="WireError",
)
