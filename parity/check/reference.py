"""The reference in torch: a checkpoint's components in fp32, in the shape of our engines' sessions.

`torch` is our own modules, which are what is traced; the tests verify them against other packages' modules. A
family may bring such modules as references of their own.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from ltxrt.engines.backend import Session
from ltxrt.engines.bundle import Bundle
from ltxrt.engines.contract import Contract
from ltxrt.engines.errors import InputError, setting
from ltxrt.export import components
from ltxrt.export.checkpoint.part import Checkpoint
from ltxrt.export.graph.trace import load_module
from ltxrt.export.graph.weights import read
from ltxrt.parity import families
from ltxrt.parity.check.inputs import HostSession
from ltxrt.parity.families import Family

TORCH = "torch"


class TorchSession(HostSession):
    """A module as an `ltxrt.engines.backend.Session`; it returns a tensor, or one for each output."""

    def __init__(self, module: Callable[..., Any], contract: Contract) -> None:
        self.module: Callable[..., Any] | None = module
        self._outputs = [tensor.name for tensor in contract.outputs]

    def run(self, feeds: Mapping[str, Any]) -> dict[str, np.ndarray]:
        if self.module is None:
            raise RuntimeError("the reference is closed")
        with torch.no_grad():
            result = self.module(**{name: torch.from_numpy(np.asarray(a)) for name, a in feeds.items()})
        tensors = (result,) if isinstance(result, torch.Tensor) else result
        return {name: tensor.numpy() for name, tensor in zip(self._outputs, tensors, strict=True)}

    def close(self) -> None:
        self.module = None


def module(checkpoint: Checkpoint, component: str) -> torch.nn.Module:
    """Our own module of a component with the checkpoint's weights in fp32."""
    row = components.row(checkpoint, component)
    config = components.part(checkpoint, component).config
    weights = {n: read(t).float() for n, t in components.weights(checkpoint, component).items()}
    with torch.device("meta"):
        empty = row.module(config)
    return load_module(empty, {**weights, **row.constants(config)})


def names(family: Family) -> tuple[str, ...]:
    """The references of a family."""
    return TORCH, *family.REFERENCES


def has(family: Family, reference: str, component: str) -> bool:
    """Whether a reference has a component."""
    if reference == TORCH:
        return True
    return component in importlib.import_module(family.REFERENCES[reference]).COMPONENTS


def session(bundle: Bundle, checkpoint: Checkpoint, component: str, reference: str = TORCH) -> Session:
    """A component of the checkpoint, loaded. Raises InputError where the reference has none."""
    family = families.family(bundle.family)
    if not has(family, reference, component):
        raise InputError(f"{setting('reference')} {reference} has no {component}; verify it against {TORCH}")
    contract = bundle.contract(component)
    if reference == TORCH:
        return TorchSession(module(checkpoint, component), contract)
    other = importlib.import_module(family.REFERENCES[reference])
    return TorchSession(other.function(checkpoint, component), contract)
