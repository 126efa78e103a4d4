"""Parts measure rows of figures, some with a verdict; each is written to a JSON file when it is measured.

An interrupted part keeps the rows measured so far. One that cannot run says what it needs and never passes.
"""

from __future__ import annotations

import importlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ltxrt.engines.errors import LtxrtError
from ltxrt.engines.storage.files import atomic_write

# Part → what it shows; each is the module of its name, with `run(place)`. In the order in which they run.
PARTS = {
    "rng": "the CUDA generator reproduces torch.Generator('cuda')",
    "device": "copies, graphs and errors of the TensorRT sessions' device",
    "modules": "the traced modules at full width, 16-bit and FP8 against fp32, in torch on CUDA",
    "backend": "every expensive operator runs on ONNX Runtime's CUDA provider; parity with torch",
    "step": "time, memory and the host's share of a step of the 2B model, beside torch",
    "vae": "the autoencoder whole and in tiles, convolution search, a video end to end",
    "rtx": "TensorRT for RTX on a GeForce 40 or 50: engines, memory, caches, graphs, parity",
}
PASSED, FAILED, ABSENT, DRY = "passed", "failed", "could not run", "tried on the CPU"
NEVER_RUN = "the part ended before anything was compared"


class UnavailableError(LtxrtError):
    """This machine lacks what a part needs; the message names it."""

    exit_code = 1


@dataclass(frozen=True)
class Row:
    """One measurement. `passed` is None for figures without a limit."""

    name: str
    passed: bool | None
    figures: Mapping[str, object] = field(default_factory=dict)
    problem: str = ""


@dataclass(frozen=True)
class Place:
    """Where parts run: `cpu` for the same code at tiny sizes without a GPU; `work` for models they make."""

    work: Path
    cpu: bool

    @property
    def device(self) -> str:
        """torch's name of the device."""
        return "cpu" if self.cpu else "cuda"

    @property
    def backend(self) -> str:
        """ltxrt's name of the ONNX Runtime backend."""
        return "onnxruntime" if self.cpu else "onnxruntime_cuda"


@dataclass
class Result:
    """The result of a part."""

    part: str
    mode: str
    status: str = ABSENT
    problem: str = NEVER_RUN
    seconds: float = 0.0
    machine: dict[str, object] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)

    @property
    def succeeded(self) -> bool:
        return self.status in (PASSED, DRY)


def run(name: str, place: Place, output: Path, tell: Callable[[str], None]) -> Result:
    """Run a part; its result is in `output`/NAME.json after every row. Failures are results."""
    result = Result(name, "cpu" if place.cpu else "gpu")
    start = time.monotonic()
    _write(result, output)
    try:
        result.machine = _machine()
        module: Any = importlib.import_module(f"ltxrt.parity.gpu.{name}")
        for row in module.run(place):
            result.rows.append(row)
            tell(f"{name}: {_line(row)}")
            result.seconds = round(time.monotonic() - start, 2)
            _write(result, output)
        result.status, result.problem = _verdict(result.rows, place)
    except UnavailableError as error:
        result.status, result.problem = ABSENT, str(error)
    except ImportError as error:
        result.status, result.problem = ABSENT, _absent(error)
    except Exception as error:
        result.status, result.problem = FAILED, one_line(error)
    result.seconds = round(time.monotonic() - start, 2)
    _write(result, output)
    return result


def attempt(name: str, measure: Callable[[], Row]) -> Row:
    """The row that `measure` returns, or a failed one where it raises, so that the part goes on."""
    try:
        return measure()
    except ImportError as error:
        return Row(name, False, problem=_absent(error))
    except Exception as error:
        return Row(name, False, problem=one_line(error))


def torch_on(place: Place) -> Any:
    """The module torch. UnavailableError where it is not installed, or lacks the place's device."""
    try:
        import torch
    except ImportError as error:
        raise UnavailableError("needs torch, which is not installed here") from error
    if not place.cpu and not torch.cuda.is_available():
        raise UnavailableError(
            f"needs an NVIDIA GPU and torch with CUDA; torch {torch.__version__} finds no GPU here "
            "(--cpu tries the same code without one)"
        )
    return torch


def _verdict(rows: list[Row], place: Place) -> tuple[str, str]:
    failed = [row.name for row in rows if row.passed is False]
    if failed:
        return FAILED, f"{len(failed)} of {len(rows)} failed: {', '.join(failed)}"
    if not any(row.passed for row in rows):
        return FAILED, NEVER_RUN
    return (DRY if place.cpu else PASSED), ""


def _absent(error: ImportError) -> str:
    name = getattr(error, "name", None)
    return f"needs {name}, which is not installed here" if name else one_line(error)


def one_line(error: Exception) -> str:
    text = " ".join(str(error).split())[:400]
    return text if isinstance(error, LtxrtError) and text else f"{type(error).__name__}: {text}"


def _line(row: Row) -> str:
    figures = ", ".join(f"{name} {_figure(value)}" for name, value in row.figures.items())
    verdict = {True: "passed", False: "FAILED", None: "measured"}[row.passed]
    return f"{row.name}: {verdict}" + f", {figures}" * bool(figures) + f" ({row.problem})" * bool(row.problem)


def _figure(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _write(result: Result, output: Path) -> None:
    data = asdict(result)
    data["rows"] = [{**asdict(row), "figures": _plain(dict(row.figures))} for row in result.rows]
    with atomic_write(output / f"{result.part}.json") as temporary:
        temporary.write_text(json.dumps(data, indent=1, allow_nan=False), encoding="utf-8")


def _plain(value: Any) -> Any:
    """`value` as JSON has it: NaN and infinities as words."""
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _machine() -> dict[str, object]:
    """The GPU and versions, as far as they can be asked without failing."""
    found: dict[str, object] = {}
    for name in ("torch", "onnxruntime", "tensorrt_rtx"):
        try:
            found[name] = str(importlib.import_module(name).__version__)
        except Exception:  # a package that is there and does not load is as absent as one that is not
            found[name] = None
    if found["torch"]:
        import torch

        if torch.cuda.is_available():
            properties = torch.cuda.get_device_properties(0)
            found |= {
                "gpu": properties.name,
                "sm": f"{properties.major}{properties.minor}",
                "cuda": torch.version.cuda,
                "memory": properties.total_memory,
            }
    return found


def asked(names: tuple[str, ...]) -> Iterator[str]:
    """The parts to run, in PARTS' order; all where none is named."""
    yield from (name for name in PARTS if not names or name in names)
