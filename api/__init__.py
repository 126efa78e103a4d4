"""Videos from text and images with LTX-Video engines, without torch.

    from ltxrt import Pipeline

    Pipeline("bundle")("a lighthouse in fog", seed=7).save("lighthouse.mp4")

A bundle is the folder that `ltx-export onnx` makes. These names are what programs use; each is loaded when it
is first asked for. What their parts are made of is in `ltxrt.runtime` and `ltxrt.engines`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ltxrt.engines.public import lazy

if TYPE_CHECKING:
    from ltxrt.engines import (
        Bundle,
        BundleError,
        EngineError,
        InputError,
        InterruptedRunError,
        LtxrtError,
        MissingPackageError,
        NumericsError,
        UnknownKeywordError,
        read_bundle,
    )
    from ltxrt.runtime import Condition, EnginePool, Pipeline, Request, Video

    __version__: str

__all__ = [
    "Bundle", "BundleError", "Condition", "EngineError", "EnginePool", "InputError", "InterruptedRunError",
    "LtxrtError", "MissingPackageError", "NumericsError", "Pipeline", "Request", "UnknownKeywordError",
    "Video", "__version__", "read_bundle",
]  # fmt: skip

_RUNTIME = ("Condition", "EnginePool", "Pipeline", "Request", "Video")
_load = lazy(__name__, {name: "runtime" if name in _RUNTIME else "engines" for name in __all__})


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from ltxrt.engines.host import package_version

        return package_version("ltxrt") or "unknown"  # a tree that was never installed has none
    return _load(name)


def __dir__() -> list[str]:
    return __all__
