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
from ltxrt.engines.errors import InputError
from ltxrt.export.graph.trace import load_module
from ltxrt.export.graph.weights import read
from ltxrt.export.ltxv import components
from ltxrt.export.ltxv.open import Checkpoint
from ltxrt.parity.check.sessions import HostSession
from ltxrt.parity.reference import diffusers

REFERENCES = ("torch", "diffusers")


class TorchSession(HostSession):
    """A module as an `ltxrt.engines.backend.Session`."""

    def __init__(self, module: Callable[..., torch.Tensor]) -> None:
        self.module: Callable[..., torch.Tensor] | None = module

    def run(self, feeds: Mapping[str, Any]) -> np.ndarray:
        if self.module is None:
            raise RuntimeError("the reference is closed")
        with torch.no_grad():
            output = self.module(**{name: torch.from_numpy(np.asarray(a)) for name, a in feeds.items()})
        return output.numpy()

    def close(self) -> None:
        self.module = None


def module(checkpoint: Checkpoint, component: str) -> torch.nn.Module:
    """Our own module of a component with the checkpoint's weights in fp32."""
    row = components.COMPONENTS[component]
    config = components.part(checkpoint, component).config
    weights = {n: read(t).float() for n, t in components.weights(checkpoint, component).items()}
    with torch.device("meta"):
        empty = row.module(config)
    return load_module(empty, {**weights, **row.constants(config)})


def session(checkpoint: Checkpoint, component: str, kind: str = "torch") -> Session:
    """A component of the checkpoint, loaded. Raises InputError for no such reference."""
    if kind == "torch":
        return TorchSession(module(checkpoint, component))
    if kind == "diffusers":
        return TorchSession(diffusers.function(checkpoint, component))
    raise InputError(f"--reference {kind!r}: must be one of {', '.join(REFERENCES)}")
