"""What a model family says of itself, so that nothing beside it names its components or sizes.

`ltxrt.engines.families.FAMILIES` has the rows. A bundle says which family it is of; its facts and presets are
then read as that family's, its contracts derived and its engines' profiles made by that family's functions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ltxrt.engines.contract import Contract
from ltxrt.engines.errors import InputError

Range = tuple[int, int, int]  # smallest, usual, largest

PLAIN = ("fp32", "fp16", "bf16")
QUANTISED = ("fp8", "fp8-fp16")
PRECISIONS = (*PLAIN, *QUANTISED)


@dataclass(frozen=True)
class Component:
    """A component of a family.

    `part` is the field of the facts that `contract` makes its contract of. The others are for messages:
    `purpose` ends a sentence about the component ("which denoises"); `option` is what an export of it is told
    beside the checkpoint; `precisions` are those that it can be exported in; `dispensable` is the name of a
    preset that does without it, and what that runs instead.
    """

    part: str
    contract: Callable[[Any], Contract]
    purpose: str
    option: str = ""
    precisions: tuple[str, ...] = PLAIN
    dispensable: tuple[str, str] | None = None


@dataclass(frozen=True)
class ProfileForm:
    """How people write the sizes that engines are built for, and what they mean for the contracts' symbols.

    A text has a number or range for each of `axes`, with `x` between: 512x768x97 for height, width, frames.
    `ranges(sizes, facts, max_tokens, extra_frames)` gives every symbol of the family's contracts its range:
    `sizes` has each axis' range as written, `max_tokens` is the longest prompt, `extra_frames` the number of
    latent frames whose tokens conditions may add. It raises InputError for sizes that the model cannot have.
    """

    axes: tuple[str, ...]
    examples: tuple[str, str]  # one size, and ranges
    ranges: Callable[[Mapping[str, Range], Any, int, int], Mapping[str, Range]]


@dataclass(frozen=True)
class Family:
    """A model family: `name` as in bundles, `title` for people, the classes of its facts and presets.

    `facts` is a dataclass whose fields are parts, None where a bundle has no component that needs one.
    `components` are in the order in which a run uses them. `preset_problem(preset, facts)` says what is wrong
    with a preset that can be read and should not be run, "" where nothing is.
    """

    name: str
    title: str
    facts: type[Any]
    preset: type[Any]
    components: Mapping[str, Component]
    profile: ProfileForm
    preset_problem: Callable[[Any, Any], str]

    def component(self, name: str) -> Component:
        """The row of `name`. Raises InputError for no such component."""
        if name not in self.components:
            raise InputError(f"no component is named {name!r:.60}; they are {', '.join(self.components)}")
        return self.components[name]

    def contract(self, name: str, facts: Any) -> Contract:
        """The contract of component `name` for a model with these facts.

        Raises InputError for an unknown component, or where the facts it needs are missing.
        """
        row = self.component(name)
        part = getattr(facts, row.part)
        if part is None:
            raise InputError(f"{name} needs facts.{row.part}, which is missing")
        return row.contract(part)

    def quantised(self) -> tuple[str, ...]:
        """The components that can be exported in FP8."""
        return tuple(n for n, row in self.components.items() if set(row.precisions) & set(QUANTISED))
