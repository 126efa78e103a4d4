"""TensorRT's log: collects errors for exceptions, and finds the reason why an engine was refused.

Both packages log errors and continue: a call returns None or False, or even True, and only the log has the
reason.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ltxrt.engines.tensorrt.cuda import SMALLER

KEPT = 100  # errors that are kept; more add no information
SHOWN = 3
_LENGTH = 300  # characters of each error
_OUT_OF_MEMORY = re.compile(
    r"out\s?of\s?memory|cudaErrorMemoryAllocation|insufficient\s\w*\s?memory|cudaError 2\b", re.IGNORECASE
)
# `EngineInvalidityDiagnostics`: the meaning of each bit, and what to do.
_DIAGNOSTICS = {
    "VERSION_MISMATCH": "it was built by another version: build it again",
    "UNSUPPORTED_CC": "it was built for another GPU: build it for this one",
    "OLD_CUDA_DRIVER": "the NVIDIA driver is too old: install a newer one",
    "OLD_CUDA_RUNTIME": "the CUDA runtime is too old: install a newer cuda-bindings",
    "INSUFFICIENT_GPU_MEMORY": "out of GPU memory",
    "MALFORMED_ENGINE": "it is no whole engine: build it again",
    "CUDA_ERROR": "CUDA failed",
}


def collecting(package: Any) -> Any:
    """A logger of `package` whose `take()` returns the errors since its last call and clears them."""

    class Log(package.ILogger):
        def __init__(self) -> None:
            package.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            wanted = severity in (package.ILogger.ERROR, package.ILogger.INTERNAL_ERROR)
            if wanted and len(self.errors) < KEPT:
                self.errors.append(" ".join(message.split())[:_LENGTH])

        def take(self) -> list[str]:
            taken, self.errors = self.errors, []
            return taken

    return Log()


def reason(errors: Sequence[str]) -> str:
    """The first errors as the end of a sentence; lack of memory gets its own text with advice."""
    if not errors:
        return "it gave no reason"
    text = "; ".join(errors[:SHOWN])
    if ran_out(errors):
        return f"out of GPU memory; {SMALLER} ({text})"
    return text


def ran_out(errors: Sequence[str]) -> bool:
    """Whether these errors say that memory ran out."""
    return any(_OUT_OF_MEMORY.search(error) for error in errors)


def invalidity(package: Any, runtime: Any, data: Any) -> list[str]:
    """The reasons why a runtime refuses the serialized engine `data`; empty if unknown.

    Only TensorRT for RTX has a call for this.
    """
    if not hasattr(runtime, "get_engine_validity"):
        return []
    _, bits = runtime.get_engine_validity(data)
    found = package.EngineInvalidityDiagnostics.__members__
    return [text for name, text in _DIAGNOSTICS.items() if name in found and int(bits) & int(found[name])]
