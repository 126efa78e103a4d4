"""The reference in torch: a checkpoint's components in fp32, in the shape of our engines' sessions.

`torch` is our own modules, which are what is traced; they are held against diffusers and transformers by the
tests. `diffusers` is those packages' modules themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from ltxrt.engines.backend import Session
from ltxrt.engines.contract import Contract
from ltxrt.engines.errors import InputError
from ltxrt.engines.families import derive
from ltxrt.export import components
from ltxrt.export.graph.trace import load_module
from ltxrt.export.graph.weights import read
from ltxrt.export.ltxv.open import Checkpoint
from ltxrt.parity.check.sessions import HostSession
from ltxrt.parity.reference import diffusers

REFERENCES = ("torch", "diffusers")


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


def session(checkpoint: Checkpoint, component: str, kind: str = "torch") -> Session:
    """A component of the checkpoint, loaded. Raises InputError for no such reference."""
    makers: dict[str, Callable[..., Any]] = {"torch": module, "diffusers": diffusers.function}
    if kind in makers:
        made = makers[kind](checkpoint, component)
        return TorchSession(made, derive(component, components.facts(checkpoint)))
    raise InputError(f"--reference {kind!r}: must be one of {', '.join(REFERENCES)}")
