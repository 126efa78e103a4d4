"""The names of backends, the same in options, in Python and as pip's extras. Standard library only."""

from __future__ import annotations

from ltxrt.engines.errors import InputError, setting
from ltxrt.engines.parsing.near import nearest
from ltxrt.engines.parsing.text import quoted

# Name → module, the better ones last: `auto` is the last one that runs a bundle on this machine.
BACKENDS: dict[str, str] = {
    "onnxruntime": "ltxrt.engines.ort",
    "onnxruntime_cuda": "ltxrt.engines.ort",
    "tensorrt_rtx": "ltxrt.engines.tensorrt.session",
    "tensorrt": "ltxrt.engines.tensorrt.session",
}
NEEDS_GPU = {"onnxruntime_cuda", "tensorrt_rtx", "tensorrt"}  # known without loading their modules
ALIASES = {"cpu": "onnxruntime", "cuda": "onnxruntime_cuda", "rtx": "tensorrt_rtx", "trt": "tensorrt"}
AUTO = "auto"


def named(name: str) -> str:
    """The backend with this name, written with `_` or `-`, or this alias. InputError if there is none."""
    plain = name.strip().lower().replace("-", "_")
    found = ALIASES.get(plain, plain)
    if found in BACKENDS:
        return found
    near = nearest(plain, (*BACKENDS, *ALIASES))
    hint = f" (the nearest is {near})" if near else ""
    raise InputError(
        f"{setting('backend')} {quoted(name)}: no backend has this name{hint}; they are {listed()}"
    )


def listed() -> str:
    """All names, aliases in brackets."""
    short = {backend: alias for alias, backend in ALIASES.items()}
    return ", ".join(f"{name} ({short[name]})" if name in short else name for name in BACKENDS)


def choices() -> tuple[str, ...]:
    """What options accept, in the order to show it in: `auto`, aliases, then full names."""
    dashed = (name.replace("_", "-") for name in BACKENDS)
    return tuple(dict.fromkeys((AUTO, *ALIASES, *BACKENDS, *dashed)))
