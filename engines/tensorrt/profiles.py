"""Profiles in pixels and frames, such as 512x768x97, as ranges of every component's axes.

An engine is built for ranges of its symbols (`ltxrt.engines.contract`), each with a smallest, a usual and a
largest value; tactics are chosen for the usual one. Several narrow profiles in one engine beat one wide
profile. What sizes mean for a model's symbols is said by its family (`ltxrt.engines.family.ProfileForm`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from ltxrt.engines import families
from ltxrt.engines.contract import Contract
from ltxrt.engines.errors import BundleError, InputError, setting
from ltxrt.engines.family import Range
from ltxrt.engines.parsing import schema as strict
from ltxrt.engines.parsing.text import quoted

Shapes = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]

# Elements of a tensor; beyond it the 32-bit indices of kernels overflow without an error of the builder.
LARGEST_TENSOR = 2**31 - 1
Size = Annotated[int, strict.Within(1, LARGEST_TENSOR)]
_AXIS = re.compile(r"([0-9]{1,9})(?:\.\.([0-9]{1,9}))?(?:\.\.([0-9]{1,9}))?")


@dataclass(frozen=True)
class Profile:
    """A profile's text, and the range of each symbol of the family's contracts."""

    text: str
    ranges: Mapping[str, Range]

    def ranges_of(self, contract: Contract) -> Mapping[str, Range]:
        """The ranges for a component: down to a tile along what is tiled, one value for what is fixed."""
        found = dict(self.ranges)
        for symbol, least in contract.tiles.items():
            low, usual, high = found[symbol]
            found[symbol] = min(least, low), usual, high
        return {**found, **{symbol: (value, value, value) for symbol, value in contract.fixed.items()}}

    def shapes(self, contract: Contract) -> dict[str, Shapes]:
        """Per input: its shape at the smallest, the usual and the largest size."""
        ranges = self.ranges_of(contract)

        def at(i: int, shape: tuple[int | str, ...], name: str) -> tuple[int, ...]:
            return contract.input(name).resolve({symbol: r[i] for symbol, r in ranges.items()})

        return {
            t.name: (at(0, t.shape, t.name), at(1, t.shape, t.name), at(2, t.shape, t.name))
            for t in contract.inputs
        }

    def holds(self, contract: Contract, sizes: Mapping[str, int]) -> bool:
        """Whether a call with these values of the symbols fits."""
        ranges = self.ranges_of(contract)
        return all(ranges[s][0] <= sizes[s] <= ranges[s][2] for s in contract.symbols)


def parse(text: str, facts: Any, max_tokens: int = 256, extra_frames: int = 4) -> Profile:
    """The sizes of the family's profiles, as HEIGHTxWIDTHxFRAMES; each a number, SMALLEST..LARGEST, or
    SMALLEST..USUAL..LARGEST.

    The usual value is the largest unless given. Raises InputError for text of another form, sizes that the
    model cannot have, and ranges that do not rise.
    """
    form = families.of(facts).profile
    parts = text.lower().split("x")
    if len(parts) != len(form.axes) or not all(map(_AXIS.fullmatch, parts)):
        wanted, examples = "x".join(axis.upper() for axis in form.axes), " or ".join(form.examples)
        raise InputError(f"{setting('profile')} {quoted(text)}: must be {wanted}, as in {examples}")
    sizes = {axis: _range(text, part) for axis, part in zip(form.axes, parts, strict=True)}
    try:
        return Profile(text, form.ranges(sizes, facts, max_tokens, extra_frames))
    except InputError as error:
        raise InputError(f"{setting('profile')} {text!r}: {error}") from error


def _range(text: str, part: str) -> Range:
    numbers = [int(n) for n in part.split("..")]
    low, high = numbers[0], numbers[-1]
    usual = numbers[1] if len(numbers) == 3 else high
    if not low <= usual <= high:
        raise InputError(f"{setting('profile')} {text!r}: {part} must rise from the smallest to the largest")
    return low, usual, high


def check(profile: Profile, contract: Contract, elements_per_cell: int | None = None) -> None:
    """Raise InputError for a profile with tensors of 2³¹ elements, inside the graph too: kernels fail."""
    largest = {t: math.prod(shapes[2]) for t, shapes in profile.shapes(contract).items()}
    if elements_per_cell is not None:
        cells = math.prod(profile.ranges[s][2] for s in contract.tiles)
        largest["a tensor inside"] = elements_per_cell * cells
    name, elements = max(largest.items(), key=lambda item: item[1])
    if elements > LARGEST_TENSOR:
        raise InputError(
            f"{setting('profile')} {profile.text!r}: {contract.component} would have {name} of "
            f"{elements:.3g} elements, more than {LARGEST_TENSOR:.3g}; build a smaller profile"
            + (f" and decode in tiles ({setting('vae_memory')})" if elements_per_cell is not None else "")
        )


def pick(profiles: Sequence[Profile], contract: Contract, sizes: Mapping[str, int]) -> int:
    """The index of the narrowest profile that holds a call; InputError says what to build if none does."""
    fitting = [i for i, profile in enumerate(profiles) if profile.holds(contract, sizes)]
    if not fitting:
        wanted = ", ".join(f"{s}={sizes[s]}" for s in contract.symbols)
        there = ", ".join(p.text for p in profiles) or "none"
        raise InputError(
            f"{contract.component}: no profile of the engine holds {wanted} (there are: {there}); build one "
            "that does with ltx-export build-engines --profile"
        )
    return min(fitting, key=lambda i: _volume(profiles[i], contract))


def _volume(profile: Profile, contract: Contract) -> int:
    return math.prod(profile.ranges[s][2] - profile.ranges[s][0] + 1 for s in contract.symbols)


def to_json(profile: Profile) -> dict[str, object]:
    return {"text": profile.text, "ranges": {name: list(r) for name, r in profile.ranges.items()}}


@dataclass(frozen=True)
class _Written:
    """A profile as written by `to_json`."""

    text: Annotated[str, strict.Most(200)]
    ranges: dict[str, tuple[Size, Size, Size]]

    def problem(self) -> str:
        falling = [s for s, (low, usual, high) in self.ranges.items() if not low <= usual <= high]
        return f"ranges of {', '.join(falling):.80}" if falling else ""


def from_json(data: Mapping[str, Any], contract: Contract) -> Profile:
    """What `to_json` wrote, for an engine with this contract. Raises BundleError for anything else."""
    try:
        profile = Profile(**vars(strict.from_json(_Written, data, "a profile")))
        needed = dict.fromkeys((*contract.symbols, *contract.tiles, *contract.fixed))
        if missing := [symbol for symbol in needed if symbol not in profile.ranges]:
            raise BundleError(f"a profile: ranges of {', '.join(missing):.80}")
        return profile
    except BundleError as error:
        raise BundleError(
            f"the engine's record holds no profile where one belongs ({error}); build it again"
        ) from error
