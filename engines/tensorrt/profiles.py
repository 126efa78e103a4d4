"""Profiles in pixels and frames, such as 512x768x97, as ranges of every component's axes.

An engine is built for ranges of its symbols (`ltxrt.engines.contract`), each with a smallest, a usual and a
largest value; tactics are chosen for the usual one. Several narrow profiles in one engine beat one wide
profile.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from ltxrt.engines.contract import Contract
from ltxrt.engines.errors import BundleError, InputError, setting
from ltxrt.engines.families.ltxv.facts import VaeFacts
from ltxrt.engines.parsing import schema as strict
from ltxrt.engines.parsing.text import quoted

Range = tuple[int, int, int]  # smallest, usual, largest
Shapes = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]

# Elements of a tensor; beyond it the 32-bit indices of kernels overflow without an error of the builder.
LARGEST_TENSOR = 2**31 - 1
MIN_TILE = 4  # the smallest tile side of the autoencoder, in latent cells
BATCH = (1, 2, 3)  # negative, positive and perturbed samples of a request, which change from step to step
TIMESTEPS = (1, 1, 8)  # distinct timesteps in a call: one, and one more per strength of conditioning
SYMBOLS = ("B", "N", "K", "T", "f", "h", "w")  # that a profile gives a range for
Size = Annotated[int, strict.Within(1, LARGEST_TENSOR)]
_AXIS = re.compile(r"([0-9]{1,9})(?:\.\.([0-9]{1,9}))?(?:\.\.([0-9]{1,9}))?")


@dataclass(frozen=True)
class Profile:
    """A profile's text, and the range of each of the contract's symbols.

    N covers the video's tokens and `extra_frames` more latent frames of conditioning tokens.
    """

    text: str
    ranges: Mapping[str, Range]

    def ranges_of(self, contract: Contract) -> Mapping[str, Range]:
        """The ranges of a component's symbols; the autoencoder's begin at the size of a tile."""
        tiled = contract.component.startswith("vae")
        return {**self.ranges, **_tiles(self.ranges)} if tiled else self.ranges

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


def parse(text: str, vae: VaeFacts, max_tokens: int = 256, extra_frames: int = 4) -> Profile:
    """HEIGHTxWIDTHxFRAMES; each a number, SMALLEST..LARGEST, or SMALLEST..USUAL..LARGEST, in pixels.

    The usual value is the largest unless given. Raises InputError for text of another form, sizes that are
    not whole numbers of latent cells (the nearest are named), and ranges that do not rise.
    """
    parts = text.lower().split("x")
    if len(parts) != 3 or not all(map(_AXIS.fullmatch, parts)):
        raise InputError(
            f"{setting('profile')} {quoted(text)}: must be HEIGHTxWIDTHxFRAMES, as in 512x768x97 or "
            "256..704x256..1216x9..161"
        )
    height, width, frames = (_range(text, part) for part in parts)
    space, time = vae.spatial_compression, vae.temporal_compression
    h = _cells(text, "height", height, space, 0)
    w = _cells(text, "width", width, space, 0)
    f = _cells(text, "frames", frames, time, 1)
    low, usual, high = (f[i] * h[i] * w[i] for i in range(3))
    tokens = (low, usual, high + extra_frames * h[2] * w[2])
    context = (1, max_tokens, max_tokens)
    return Profile(text, {"B": BATCH, "N": tokens, "K": TIMESTEPS, "T": context, "f": f, "h": h, "w": w})


def _range(text: str, part: str) -> Range:
    numbers = [int(n) for n in part.split("..")]
    low, high = numbers[0], numbers[-1]
    usual = numbers[1] if len(numbers) == 3 else high
    if not low <= usual <= high:
        raise InputError(f"{setting('profile')} {text!r}: {part} must rise from the smallest to the largest")
    return low, usual, high


def _cells(text: str, name: str, pixels: Range, factor: int, offset: int) -> Range:
    """Pixels along an axis as latent cells: factor·k, or factor·(k − 1) + 1 for frames."""
    for value in pixels:
        if value < 1 or (value - offset) % factor:
            below = max((value - offset) // factor * factor + offset, offset or factor)
            rule = f"{factor}k+{offset}" if offset else f"a multiple of {factor}"
            raise InputError(
                f"{setting('profile')} {text!r}: {name} {value} must be {rule}; "
                f"nearest are {below} and {below + factor}"
            )
    low, usual, high = ((value - offset) // factor + offset for value in pixels)
    return low, usual, high


def _tiles(ranges: Mapping[str, Range]) -> dict[str, Range]:
    """The autoencoder's inputs are one video, whole or in tiles, or a single image."""
    least = {"f": 1, "h": MIN_TILE, "w": MIN_TILE}
    smaller = {s: (min(least[s], ranges[s][0]), *ranges[s][1:]) for s in least}
    return {**smaller, "B": (1, 1, 1)}


def check(profile: Profile, contract: Contract, elements_per_cell: int | None = None) -> None:
    """Raise InputError for a profile with tensors of 2³¹ elements, inside the graph too: kernels fail."""
    largest = {t: math.prod(shapes[2]) for t, shapes in profile.shapes(contract).items()}
    if elements_per_cell is not None:
        cells = math.prod(profile.ranges[s][2] for s in ("f", "h", "w"))
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
            "that does with ltx-export build-engines --profile HEIGHTxWIDTHxFRAMES"
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
        missing = [symbol for symbol in SYMBOLS if symbol not in self.ranges]
        falling = [s for s, (low, usual, high) in self.ranges.items() if not low <= usual <= high]
        return f"ranges of {', '.join(missing + falling):.80}" if missing or falling else ""


def from_json(data: Mapping[str, Any]) -> Profile:
    """The profile that `to_json` wrote. Raises BundleError for anything else."""
    try:
        return Profile(**vars(strict.from_json(_Written, data, "a profile")))
    except BundleError as error:
        raise BundleError(
            f"the engine's record holds no profile where one belongs ({error}); build it again"
        ) from error
