"""A step of the 2B model at 121 frames of 512x768: ONNX Runtime and torch, memory, the host's share."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch

from ltxrt.engines import ort
from ltxrt.engines.backend import BoundEngine, load_engine
from ltxrt.parity.gpu import models
from ltxrt.parity.gpu.parts import Place, Row, attempt, one_line, torch_on
from ltxrt.runtime.sampling.conditioning import Strengths, TokenStream
from ltxrt.runtime.sampling.denoise import denoise

TOKENS, SMALL_TOKENS = 6144, 24
TEXT = 128
BATCHES = (1, 2, 3)
ROUNDS = 5
PRECISIONS = ("bf16", "fp16")


def run(place: Place) -> Iterator[Row]:
    torch_on(place)
    tokens = SMALL_TOKENS if place.cpu else TOKENS
    config = models.models(place).transformer
    yield attempt("host's own work in a step", lambda: _host(config, tokens))
    for precision in PRECISIONS:
        for compiled in (False,) if place.cpu and precision != PRECISIONS[0] else (False, True):
            name = f"torch{' compiled' * compiled} {precision}"
            yield from _rows(name, partial(_torch, place, config, precision, compiled, tokens))
    for precision in (p for p in ("bf16", "fp16", "fp32") if p in ort.PRECISIONS[place.backend][:2]):
        yield from _rows(f"{place.backend} {precision}", partial(_ort, place, precision, tokens))


def _rows(name: str, contender: Callable[[], Iterator[tuple[int, dict[str, object]]]]) -> Iterator[Row]:
    """A row per batch; a failed one with the reason where the contender cannot run."""
    done = 0
    try:
        for batch, figures in contender():
            done += 1
            yield Row(f"{name}, batch {batch}", bool(figures["finite"]), figures)
    except Exception as error:
        where = f"{name}, batch {BATCHES[done]}" if done < len(BATCHES) else name
        yield Row(where, False, problem=one_line(error))


def _torch(
    place: Place, config: Any, precision: str, compiled: bool, tokens: int
) -> Iterator[tuple[int, dict[str, object]]]:
    module: Any = models.filled("transformer", config, precision, place.device)
    if compiled:
        module.compile(dynamic=False, backend="eager" if place.cpu else "inductor")
    for batch in BATCHES[:1] if place.cpu and compiled else BATCHES:
        feed = models.transformer_feed(config, batch, tokens, TEXT, place.device)
        if not place.cpu:
            torch.cuda.reset_peak_memory_stats()

        def call(feed: dict[str, Any] = feed) -> Any:
            with torch.no_grad():
                output = module(**feed)
            return output.float().cpu().numpy()  # as the output of an engine is

        figures = timed(call)
        if not place.cpu:
            figures["peak GiB"] = torch.cuda.max_memory_allocated() / 2**30
        yield batch, figures


def _ort(place: Place, precision: str, tokens: int) -> Iterator[tuple[int, dict[str, object]]]:
    bundle = models.bundle(place, "step-bundle", ("transformer",), (precision,), small=False)
    before = models.taken_bytes(place)
    with load_engine(bundle, "transformer", backend=place.backend, precision=precision, calls=40) as engine:
        for batch in BATCHES:
            sizes = {"B": batch, "N": tokens, "K": 1, "T": TEXT}
            arrays = dict(bundle.contract("transformer").sample(sizes, np.random.default_rng(0)))
            moving = {name: arrays.pop(name) for name in ("latents", "timesteps")}
            bound = engine.bind(**arrays)  # as a pass of the sampler does
            figures = timed(partial(_velocity, bound, moving))
            figures["peak GiB"] = (models.taken_bytes(place) - before) / 2**30
            yield batch, figures


def _velocity(engine: BoundEngine, feed: dict[str, np.ndarray]) -> np.ndarray:
    return engine(**feed)["velocity"]


def timed(call: Callable[[], Any]) -> dict[str, object]:
    """Milliseconds of a call: the first, and the median and extremes of those after a second."""

    output = np.zeros(0)

    def once() -> float:
        nonlocal output
        start = time.perf_counter()
        output = call()
        return 1000 * (time.perf_counter() - start)

    first, _ = once(), once()
    later = [once() for _ in range(ROUNDS)]
    times = {"ms": statistics.median(later), "least": min(later), "most": max(later), "first": first}
    return {**times, "finite": bool(np.isfinite(output).all())}


def _host(config: Any, tokens: int) -> Row:
    """NumPy's part of a step: the sampler around a velocity that costs nothing."""
    rng = np.random.default_rng(0)
    latents = rng.standard_normal((1, tokens, config.in_channels), np.float32)
    velocity = rng.standard_normal(latents.shape, np.float32)
    sigmas = np.linspace(1, 0.05, ROUNDS + 1, dtype=np.float32)
    start = time.perf_counter()
    free = Strengths.of(np.zeros((1, tokens), np.float32))
    streams = {"video": TokenStream(latents, np.zeros((3, tokens), np.float32), free, slice(None))}
    for _step in denoise(lambda *_: {"video": velocity}, streams, sigmas, np.zeros):
        pass
    milliseconds = 1000 * (time.perf_counter() - start) / len(sigmas)
    return Row("host's own work in a step", None, {"ms": milliseconds, "tokens": tokens})
