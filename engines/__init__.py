"""What an engine is, what goes in and out of it, how it is cached, loaded and called.

Knows tensors and files. Knows nothing of prompts, videos, checkpoints or torch. The names in `__all__` are
for other packages and programs; each is loaded when it is first asked for, so that a command's `--help` does
not import NumPy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ltxrt.engines.public import lazy

if TYPE_CHECKING:
    from ltxrt.engines.backend import BACKENDS, BoundEngine, Engine, available, load_engine, why_not
    from ltxrt.engines.bundle import Bundle, read_bundle, verify
    from ltxrt.engines.contract import Contract, Tensor
    from ltxrt.engines.errors import (
        BundleError,
        EngineError,
        InputError,
        InterruptedRunError,
        LtxrtError,
        MissingPackageError,
        NumericsError,
        UnknownKeywordError,
    )
    from ltxrt.engines.families import FAMILIES
    from ltxrt.engines.family import Component, Family

__all__ = [
    "BACKENDS", "FAMILIES", "BoundEngine", "Bundle", "BundleError", "Component", "Contract", "Engine",
    "EngineError", "Family", "InputError", "InterruptedRunError", "LtxrtError", "MissingPackageError",
    "NumericsError", "Tensor", "UnknownKeywordError", "available", "load_engine", "read_bundle", "verify",
    "why_not",
]  # fmt: skip

_HOMES = {
    "backend": ("BACKENDS", "BoundEngine", "Engine", "available", "load_engine", "why_not"),
    "bundle": ("Bundle", "read_bundle", "verify"),
    "contract": ("Contract", "Tensor"),
    "errors": (
        "BundleError", "EngineError", "InputError", "InterruptedRunError", "LtxrtError",
        "MissingPackageError", "NumericsError", "UnknownKeywordError",
    ),
    "families": ("FAMILIES",),
    "family": ("Component", "Family"),
}  # fmt: skip

__getattr__ = lazy(__name__, {name: home for home, names in _HOMES.items() for name in names})
