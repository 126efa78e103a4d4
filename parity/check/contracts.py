"""Verification of a family that brings no sampler: random inputs that fit the contracts.

Floats are normal, integers zero and flags true, as `Contract.sample` makes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ltxrt.engines.bundle import Bundle
from ltxrt.engines.errors import InputError
from ltxrt.parity.check.inputs import Feed, Load, Plan, Sampled, Size
from ltxrt.parity.check.tolerances import Allowed
from ltxrt.runtime.engine_pool import Engines

REFERENCES: Mapping[str, str] = {}
SAMPLED: Sequence[str] = ()
TOLERANCES: Mapping[tuple[str, str], Allowed] = {}
CALLS = 3


def called(_bundle: Bundle) -> tuple[str, ...]:
    """None: inputs are drawn."""
    return ()


def check_size(_bundle: Bundle, _size: Size) -> None:
    """Sizes follow from the contracts' symbols."""


def record(bundle: Bundle, _load: Load, plan: Plan, _reference: str) -> list[Feed]:
    """Inputs of `CALLS` calls of each component, every symbol with a size of its own."""
    rng = np.random.default_rng(plan.seed)
    feeds = []
    for component in bundle.components:
        contract = bundle.contract(component)
        for call in range(CALLS):
            sizes = {symbol: call + i for i, symbol in enumerate(contract.symbols, 1)}
            size = ", ".join(f"{symbol}={value}" for symbol, value in sizes.items())
            feeds.append(Feed(component, "random inputs", size, contract.sample(sizes, rng)))
    return feeds


def sample(_engines: Engines, _plan: Plan, _reference: str) -> Sampled:
    """Raises InputError: there is no sampler."""
    raise InputError("ltxrt has no sampler for this model; verify its components, without the whole run")
