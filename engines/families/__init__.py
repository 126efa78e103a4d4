"""The model families, one row each: facts, contracts and components.

Adding a family is a folder here and a row in FAMILIES (docs/extending.md).
"""

from __future__ import annotations

from typing import Any

from ltxrt.engines.contract import Contract
from ltxrt.engines.errors import InputError
from ltxrt.engines.families.ltxv.family import LTX_VIDEO
from ltxrt.engines.family import Family
from ltxrt.engines.parsing.text import quoted

FAMILIES: dict[str, Family] = {LTX_VIDEO.name: LTX_VIDEO}  # by the name in a bundle


def named(name: str) -> Family:
    """The family with this name in bundles. InputError for an unknown one."""
    if name not in FAMILIES:
        raise InputError(f"model family {quoted(name)}; this ltxrt runs {', '.join(FAMILIES)}")
    return FAMILIES[name]


def of(facts: Any) -> Family:
    """The family of these facts."""
    for family in FAMILIES.values():
        if isinstance(facts, family.facts):
            return family
    raise TypeError(f"{type(facts).__name__}: the facts of no family")


def derive(component: str, facts: Any) -> Contract:
    """The contract of `component` for a model with these facts, of any family; as `Family.contract`."""
    return of(facts).contract(component, facts)


def component_names() -> tuple[str, ...]:
    """The components of all families, each name once."""
    return tuple(dict.fromkeys(name for family in FAMILIES.values() for name in family.components))
