"""The benchmark: the same work on this runtime and on what a user would run instead."""

from ltxrt.engines.public import public

__all__, __getattr__ = public(
    __name__,
    cli="bench_command",
)
