"""Polygraphy: runners for torch and for our engines, its comparison classes, and a verdict that can fail.

The only file that imports it; its minor version is pinned. Its own verdict is true for no runner or one, for
no iteration, for an output that is missing on one side or named otherwise, for infinities, and for a constant
output beside the same constant; `problems_of` looks at each of these first.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltxrt.engines.backend import Session
from ltxrt.engines.contract import DTYPES, Contract
from ltxrt.engines.errors import MissingPackageError
from ltxrt.parity.check.results import Metrics, Tolerance

try:
    from polygraphy.backend.base import BaseRunner
    from polygraphy.common import TensorMetadata
    from polygraphy.comparator import (
        Comparator,
        CosineSimilarityCompareFunc,
        IterationResult,
        L2CompareFunc,
        PsnrCompareFunc,
        RunResults,
        SnrCompareFunc,
    )
    from polygraphy.json import save_json
    from polygraphy.logger import G_LOGGER
except ImportError as error:
    raise MissingPackageError("polygraphy", "parity") from error

Outputs = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Ran:
    """The outputs of one runner, an iteration per feed, and the seconds that they took together."""

    name: str
    outputs: tuple[Outputs, ...]
    seconds: float


class SessionRunner(BaseRunner):
    """A Polygraphy runner of anything with our session's shape: torch modules and engines alike.

    The session is loaded when the runner is activated and freed when it is deactivated, so that one model at
    a time is in memory. `called` is told how many calls were made.
    """

    def __init__(
        self, name: str, contract: Contract, load: Callable[[], Session], called: Callable[[int], None]
    ) -> None:
        super().__init__(name=name)
        self._contract, self._load, self._called = contract, load, called
        self._calls = 0
        self._session: Session | None = None

    def get_input_metadata_impl(self) -> Any:
        metadata = TensorMetadata()
        for tensor in self._contract.inputs:
            shape = tuple(d if isinstance(d, int) else -1 for d in tensor.shape)
            metadata.add(tensor.name, DTYPES[tensor.dtype], shape)
        return metadata

    def activate_impl(self) -> None:
        self._session = self._load()

    def infer_impl(self, feed_dict: Mapping[str, NDArray[Any]]) -> Any:
        if self._session is None:
            raise RuntimeError(f"{self.name} is not active")
        start = time.monotonic()
        outputs = self._session.run(dict(feed_dict))
        self.inference_time = time.monotonic() - start
        self._calls += 1
        self._called(self._calls)
        return OrderedDict(outputs)

    def deactivate_impl(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.close()


def run(runner: SessionRunner, feeds: Sequence[Mapping[str, NDArray[Any]]]) -> Ran:
    """Every feed through one runner, which is loaded and freed here."""
    start = time.monotonic()
    with G_LOGGER.verbosity(G_LOGGER.ERROR):
        results = Comparator.run([runner], data_loader=[OrderedDict(f) for f in feeds])
    ((name, iterations),) = results.items()
    outputs = tuple({n: np.asarray(a) for n, a in i.items()} for i in iterations)
    return Ran(name, outputs, time.monotonic() - start)


def save(
    feeds: Sequence[Mapping[str, NDArray[Any]]], ran: Ran, inputs_path: Path, outputs_path: Path
) -> None:
    """Inputs and the reference's outputs as `polygraphy run --load-inputs --load-outputs` reads them."""
    with G_LOGGER.verbosity(G_LOGGER.ERROR):
        _save(feeds, ran, inputs_path, outputs_path)


def _save(
    feeds: Sequence[Mapping[str, NDArray[Any]]], ran: Ran, inputs_path: Path, outputs_path: Path
) -> None:
    results = RunResults()
    results.append((ran.name, [IterationResult(OrderedDict(o), runner_name=ran.name) for o in ran.outputs]))
    save_json([OrderedDict(f) for f in feeds], str(inputs_path), description="inputs")
    results.save(str(outputs_path))


def problems_of(reference: Sequence[Outputs], ours: Sequence[Outputs]) -> list[str]:
    """Why two runs cannot be compared at all, in whole; nothing if they can."""
    if not reference or not ours:
        return ["nothing ran on one side: there is nothing to compare"]
    if len(reference) != len(ours):
        return [f"the reference made {len(reference)} calls, the engine {len(ours)}"]
    return []


def problems_of_output(name: str, theirs: Outputs, ours: Outputs) -> list[str]:
    """Why an output cannot be compared, or must not be called equal whatever the metrics say."""
    if set(theirs) != set(ours) or not theirs:
        shown = sorted(ours) or "nothing", sorted(theirs) or "nothing"
        return [f"outputs are named {shown[0]}, the reference's {shown[1]}"]
    a, b = np.asarray(theirs[name]), np.asarray(ours[name])
    if a.dtype != b.dtype or a.shape != b.shape:
        return [f"{name} is {b.dtype} {b.shape}, the reference's {a.dtype} {a.shape}"]
    if a.size == 0:
        return [f"{name} is empty"]
    if not np.isfinite(a).all():
        return [f"{name} of the reference holds NaN or infinities"]
    if not np.isfinite(b).all():
        return [f"{name} holds NaN or infinities"]
    if float(a.std(dtype=np.float64)) == 0:
        return [f"{name} of the reference is the same number everywhere: it tells nothing apart"]
    return []


def compare(
    name: str, theirs: Outputs, ours: Outputs, tolerance: Tolerance
) -> tuple[Metrics | None, list[str]]:
    """Metrics of a call's output by Polygraphy's classes, and what is wrong: nothing within the tolerance."""
    problems = problems_of_output(name, theirs, ours)
    if problems:
        return None, problems
    reference = np.asarray(theirs[name], np.float64)
    mean, deviation = reference.mean(), reference.std()
    sides = [(np.asarray(side[name], np.float64) - mean) / deviation for side in (theirs, ours)]
    first, second = (IterationResult({name: side}, runner_name=who) for side, who in zip(sides, "ab"))
    root = math.sqrt(reference.size)
    functions = {
        "relative_l2": L2CompareFunc(tolerance.relative_l2 * root),
        "cosine": CosineSimilarityCompareFunc(tolerance.cosine),
        "psnr": PsnrCompareFunc(tolerance.psnr),
        "snr": SnrCompareFunc(tolerance.psnr),
    }
    with G_LOGGER.verbosity(G_LOGGER.CRITICAL):
        verdicts = {key: function(first, second)[name] for key, function in functions.items()}
    values = {key: float(next(iter(v.metric_values().values()))) for key, v in verdicts.items()}
    values["relative_l2"] /= root
    for key, verdict in verdicts.items():
        # `not`, so that a metric that is NaN fails
        if not verdict:
            problems.append(f"{key} {values[key]:.6g} where {_allowed(key, tolerance)} is allowed")
    largest = float(np.abs(sides[0] - sides[1]).max())
    metrics = Metrics(
        values["relative_l2"], values["cosine"], _finite(values["psnr"]), _finite(values["snr"]), largest
    )
    return metrics, problems


def _allowed(key: str, tolerance: Tolerance) -> str:
    return f"{tolerance.psnr if key == 'snr' else getattr(tolerance, key):.6g}"


def _finite(decibels: float) -> float | None:
    return decibels if math.isfinite(decibels) else None


def by_token(theirs: NDArray[Any], ours: NDArray[Any], axis: int, pieces: int = 64) -> tuple[float, ...]:
    """The relative L2 error of each of at most `pieces` stretches along `axis`."""
    reference = np.asarray(theirs, np.float64)
    error = ((np.asarray(ours, np.float64) - reference) / reference.std()) ** 2
    along = np.moveaxis(error, axis, 0).reshape(reference.shape[axis], -1).mean(1)
    return tuple(float(np.sqrt(part.mean())) for part in np.array_split(along, min(pieces, len(along))))
