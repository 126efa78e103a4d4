"""Sizes in pixels that are a whole number of latent cells, and the nearest where one is not."""

from __future__ import annotations

from ltxrt.engines.errors import InputError, setting


def nearest_sizes(value: int, factor: int, offset: int) -> tuple[int, ...]:
    """The positive sizes of the form `factor * k + offset` next to `value`, or `value` alone."""
    below = (value - offset) // factor * factor + offset
    candidates = (below,) if below == value else (below, below + factor)
    valid = tuple(size for size in candidates if size > 0)
    return valid or (offset or factor,)


def check_size(name: str, value: int, factor: int, offset: int) -> None:
    """Raise InputError unless `value` is positive and of the form `factor * k + offset` (offset 0 or 1)."""
    nearest = nearest_sizes(value, factor, offset)
    if value in nearest:
        return
    rule = f"{factor}k+{offset}" if offset else f"a multiple of {factor}"
    joined = " and ".join(map(str, nearest))
    raise InputError(
        f"{setting(name)} {value}: must be {rule}; nearest {'is' if len(nearest) == 1 else 'are'} {joined}"
    )
