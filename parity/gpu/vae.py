"""The autoencoder on ONNX Runtime: whole and in tiles, convolution search, a video end to end."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from ltxrt.engines import ort
from ltxrt.engines.bundle import Bundle
from ltxrt.parity.check.tolerances import END_TO_END
from ltxrt.parity.gpu import models
from ltxrt.parity.gpu.backend import COMPONENTS, available
from ltxrt.parity.gpu.parts import Place, Row, attempt, torch_on
from ltxrt.parity.metrics import frames_psnr
from ltxrt.runtime.ltxv.pipeline import Pipeline
from ltxrt.runtime.request.request import Request
from ltxrt.runtime.sampling.latents import LatentShape
from ltxrt.runtime.vae import tiling

GRID, SMALL_GRID = LatentShape(16, 16, 24), LatentShape(3, 8, 12)
BUDGET, SMALL_BUDGET = 2 << 30, 50 << 20
SEARCHES = ("HEURISTIC", "EXHAUSTIVE", "DEFAULT")
SIZE = {"height": 64, "width": 96, "num_frames": 9}


def run(place: Place) -> Iterator[Row]:
    torch_on(place)
    providers = available(place)
    precision = "fp32" if place.cpu else "bf16"
    name = "small-bundle" if place.cpu else "vae-bundle"
    bundle = models.bundle(place, name, ("vae_decoder",), (precision,), small=place.cpu)
    searches = SEARCHES[:1] if place.cpu else SEARCHES
    for search in searches:  # each in a session of its own; the first also whole against tiles
        yield attempt(f"whole, {search}", partial(_whole, place, bundle, precision, _with(providers, search)))
    yield attempt(
        "within the budget", lambda: _tiled(place, bundle, precision, _with(providers, SEARCHES[0]))
    )
    yield attempt("end to end", lambda: _end_to_end(place))


def _with(providers: list[Any], search: str) -> list[Any]:
    """The providers, CUDA's with a way to search for convolutions."""
    option = {"cudnn_conv_algo_search": search}
    return [
        (p[0], {**p[1], **option}) if isinstance(p, tuple) and p[0].startswith("CUDA") else p
        for p in providers
    ]


def _session(bundle: Bundle, precision: str, providers: list[Any]) -> Any:
    import onnxruntime

    options = ort.session_options(bundle.contract("vae_decoder"), None, 1)
    path = bundle.path(bundle.components["vae_decoder"][precision].file)
    return onnxruntime.InferenceSession(str(path), options, providers=providers)


def _latents(place: Place, bundle: Bundle) -> dict[str, np.ndarray]:
    shape = SMALL_GRID if place.cpu else GRID
    sizes = {"B": 1, "f": shape.frames, "h": shape.height, "w": shape.width}
    return dict(bundle.contract("vae_decoder").sample(sizes, np.random.default_rng(0)))


def _whole(place: Place, bundle: Bundle, precision: str, providers: list[Any]) -> Row:
    feed = _latents(place, bundle)
    before = models.taken_bytes(place)
    session = _session(bundle, precision, providers)
    seconds, pixels = [], np.zeros(0)
    for _ in range(3):
        start = time.monotonic()
        (pixels,) = session.run(None, feed)
        seconds.append(time.monotonic() - start)
    figures = {"first s": seconds[0], "later s": min(seconds[1:]), "GiB": _gib(place, before)}
    return Row(f"whole, {_search(providers)}", bool(np.isfinite(pixels).all()), figures)


def _search(providers: list[Any]) -> str:
    options: dict[str, str] = next((p[1] for p in providers if isinstance(p, tuple)), {})
    return str(options.get("cudnn_conv_algo_search", SEARCHES[0]))


def _tiled(place: Place, bundle: Bundle, precision: str, providers: list[Any]) -> Row:
    """The same latents in tiles within the budget: time, memory, and the difference from the whole."""
    feed, facts = _latents(place, bundle), bundle.facts.vae
    memory = bundle.components["vae_decoder"][precision].memory
    if facts is None or memory is None:
        raise ValueError("the bundle does not record its autoencoder's memory; export it again")
    latents = feed.pop("latents")
    budget = SMALL_BUDGET if place.cpu else BUDGET
    tiles = tiling.fitting(LatentShape(*latents.shape[2:]), budget, memory)
    session = _session(bundle, precision, providers)
    (whole,) = _session(bundle, precision, providers).run(None, {"latents": latents, **feed})
    before = models.taken_bytes(place)

    def call(tile: np.ndarray, _rows: slice, _columns: slice) -> np.ndarray:
        (pixels,) = session.run(None, {"latents": np.ascontiguousarray(tile), **feed})
        return np.asarray(pixels)

    start = time.monotonic()
    pixels = np.concatenate(list(tiling.decode(call, latents, tiles, facts)), axis=1)
    seconds = time.monotonic() - start
    error = float(np.sqrt(np.mean((pixels - whole[0]) ** 2)) / whole.std())
    figures = {
        "budget GiB": budget / 2**30,
        "tile": f"{tiles.frames}x{tiles.height}x{tiles.width}",
        "of": "x".join(map(str, latents.shape[2:])),
        "s": seconds,
        "GiB beside the whole": _gib(place, before),
        "error": error,
    }
    return Row("within the budget", math.isfinite(error), figures)


def _gib(place: Place, before: int) -> float:
    return (models.taken_bytes(place) - before) / 2**30


def _end_to_end(place: Place) -> Row:
    """One small video of the backend in 16 bits and of the CPU in fp32, from the same seed."""
    precision = "fp16" if place.cpu else "bf16"
    bundle = models.bundle(place, "small-bundle", COMPONENTS, ("fp32", precision), small=True)
    frames = [
        Pipeline(bundle, backend=backend, precision=dict.fromkeys(COMPONENTS, chosen))
        .generate(Request("a lighthouse in fog", steps=3, seed=5, **SIZE))  # type: ignore[arg-type]
        .frames
        for backend, chosen in (("onnxruntime", "fp32"), (place.backend, precision))
    ]
    found, least = frames_psnr(frames[0], frames[1]), END_TO_END[precision][0]
    psnr = math.inf if found is None else found
    return Row("end to end", psnr >= least, {"PSNR dB": psnr, "allowed": least, "precision": precision})
