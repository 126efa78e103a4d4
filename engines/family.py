"""The description of a model family, so that no module outside a family names its components or sizes.

`ltxrt.engines.families.FAMILIES` has the rows. A bundle names its family, whose classes and functions read
its facts and presets, derive its contracts and make its engines' profiles.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ltxrt.engines.contract import Contract
from ltxrt.engines.errors import InputError
from ltxrt.engines.precision import PLAIN, QUANTISED

Range = tuple[int, int, int]  # smallest, usual, largest


@dataclass(frozen=True)
class Component:
    """A component of a family.

    `part` is the field of the facts from which `contract` derives the contract; `precisions` are those that
    it can be exported in. The others are for messages: `purpose` ends a sentence about the component ("which
    denoises"); `option` is the option of an export that adds it; `dispensable` is the name of a preset that
    works without it, and what that preset runs instead. `videos`: whether "all" take the component, "some" or
    "none".
    """

    part: str
    contract: Callable[[Any], Contract]
    purpose: str
    option: str = ""
    precisions: tuple[str, ...] = PLAIN
    dispensable: tuple[str, str] | None = None
    videos: str = "all"


@dataclass(frozen=True)
class ProfileForm:
    """How profiles are written, and the ranges of the contracts' symbols that follow from them.

    A text has a number or range for each of `axes`, with `x` between: 512x768x97 for height, width, frames.
    `ranges(sizes, facts, max_tokens, extra_frames)` returns the range of every symbol in the family's
    contracts: `sizes` has each axis' range as written, `max_tokens` is the longest prompt, `extra_frames` the
    number of latent frames of conditioning tokens. It raises InputError for sizes that the model does not
    support.
    """

    axes: tuple[str, ...]
    examples: tuple[str, str]  # one size, and ranges
    ranges: Callable[[Mapping[str, Range], Any, int, int], Mapping[str, Range]]


@dataclass(frozen=True)
class Family:
    """A model family: `name` in bundles, `title` in texts, the classes of its facts and presets.

    `facts` is a dataclass whose fields are parts; a part is None if no component in a bundle needs it.
    `components` are in the order of a run. `preset_problem(preset, facts)` returns why a readable preset must
    not be run, or "".
    """

    name: str
    title: str
    facts: type[Any]
    preset: type[Any]
    components: Mapping[str, Component]
    profile: ProfileForm
    preset_problem: Callable[[Any, Any], str]

    def component(self, name: str) -> Component:
        """The row of `name`. Raises InputError for an unknown component."""
        if name not in self.components:
            raise InputError(f"no component is named {name!r:.60}; they are {', '.join(self.components)}")
        return self.components[name]

    def contract(self, name: str, facts: Any) -> Contract:
        """The contract of component `name` for a model with these facts.

        Raises InputError for an unknown component, or if the facts it needs are missing.
        """
        row = self.component(name)
        part = getattr(facts, row.part)
        if part is None:
            raise InputError(f"{name} needs facts.{row.part}, which is missing")
        return row.contract(part)

    def quantised(self) -> tuple[str, ...]:
        """The components that can be exported in FP8."""
        return tuple(n for n, row in self.components.items() if set(row.precisions) & set(QUANTISED))
