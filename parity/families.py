"""How each model family's engines are verified. A family without a row here is verified by random inputs."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from ltxrt.engines.bundle import Bundle
    from ltxrt.parity.check.inputs import Feed, Load, Plan, Sampled, Size
    from ltxrt.parity.check.tolerances import Allowed
    from ltxrt.runtime.engine_pool import Engines

FAMILIES = {"ltx-video": "ltxrt.parity.ltxv.family"}  # name in bundles → its module


class Family(Protocol):
    """The module of a family; `ltxrt.parity.check.contracts` is that of all families that have none."""

    REFERENCES: Mapping[
        str, str
    ]  # beside the traced modules: name → module like `ltxrt.parity.ltxv.diffusers`
    SAMPLED: Sequence[str]  # the components of the whole sampler; without any, there is no end-to-end run
    TOLERANCES: Mapping[tuple[str, str], Allowed]  # of outputs, by component and name, that need others

    def called(self, bundle: Bundle, /) -> tuple[str, ...]:
        """The components that `record` runs; the checkpoint must have them."""

    def check_size(self, bundle: Bundle, size: Size, /) -> None:
        """Raise InputError for a height, width and number of frames that the model does not make."""

    def record(self, bundle: Bundle, load: Load, plan: Plan, reference: str, /) -> list[Feed]:
        """The inputs of every call of every component, from runs on the sessions that `load` gives."""

    def sample(self, engines: Engines, plan: Plan, reference: str, /) -> Sampled:
        """A run of the whole sampler."""


def family(name: str) -> Family:
    """The module of one."""
    module: Any = importlib.import_module(FAMILIES.get(name, "ltxrt.parity.check.contracts"))
    return module
