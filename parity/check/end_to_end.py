"""The whole sampler on engines beside the whole sampler on the reference, from the same noise."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ltxrt.engines.errors import LtxrtError
from ltxrt.export.write import BASE
from ltxrt.parity.check import emulation, inputs
from ltxrt.parity.check import run as check
from ltxrt.parity.check.inputs import CASES, ReferenceEngines
from ltxrt.parity.check.results import FAILED, PASSED, SKIPPED, EndToEnd
from ltxrt.parity.check.run import Order, Tell
from ltxrt.parity.check.tolerances import END_TO_END
from ltxrt.runtime.ltxv.guidance import STREAM
from ltxrt.runtime.ltxv.pipeline import Pipeline
from ltxrt.runtime.ltxv.results import Event
from ltxrt.runtime.media.write import VideoWriter, save_strip

COMPONENTS = ("text_encoder", "transformer", "vae_decoder")
_WINDOW = 8  # pixels a side, for SSIM
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2  # of Wang et al. 2004, for 8 bits


@dataclass(frozen=True)
class Sampled:
    """Latents (1,N,C) after each step, and the frames (F,H,W,3) uint8."""

    latents: list[NDArray[np.float32]]
    frames: NDArray[np.uint8]


def run(order: Order, folder: Path, tell: Tell) -> tuple[EndToEnd, ...]:
    """Text to video, once on the reference and once per precision and backend that can run all of it."""
    load = check.loader(order)
    tell("end to end: sampling on the reference")
    theirs = _sample(Pipeline(order.bundle, engines=ReferenceEngines(order.bundle, load)), order)
    precisions = dict.fromkeys(p for name in COMPONENTS for p in order.bundle.components.get(name, {}))
    wanted = [p for p in precisions if not order.precisions or p in order.precisions]
    found = []
    for precision in wanted:
        for backend in check.backends(order, precision):
            result = _one(order, precision, backend, theirs, folder)
            if result.status != SKIPPED:
                reasons = "".join(f": {problem}" for problem in result.problems)
                where = f"{backend}{_beside(order, precision)}"
                tell(f"end to end {precision} on {where}: {result.status}{reasons}")
            found.append(result)
    return tuple(found)


def status(before: str, runs: Iterable[EndToEnd]) -> str:
    """The report's status: a failed run fails it, a passed one adds nothing, none leaves it unproved."""
    states = {run.status for run in runs}
    if FAILED in states:
        return FAILED
    return before if PASSED in states or before == FAILED else SKIPPED


def _one(order: Order, precision: str, backend: str, theirs: Sampled, folder: Path) -> EndToEnd:
    base = EndToEnd(precision, backend, order.reference, SKIPPED, (), None, 0.0, "", "")
    chosen = {name: _nearest(order, name, precision) for name in COMPONENTS}
    reason = _unavailable(order, chosen, precision, backend)
    if reason is not None:
        return replace(base, problems=(reason,))
    pipeline = _pipeline(order, chosen, backend)
    try:
        ours = _sample(pipeline, order)
    except LtxrtError as error:
        return replace(base, status=FAILED, problems=(str(error),))
    cosines = tuple(_cosine(a, b) for a, b in zip(theirs.latents, ours.latents))
    psnr, ssim = frames_psnr(theirs.frames, ours.frames), frames_ssim(theirs.frames, ours.frames)
    problems = tuple(judge(precision, theirs, ours, cosines, psnr))
    files = _show(folder, f"{precision}.{backend}", theirs.frames, ours.frames)
    return EndToEnd(
        precision,
        backend,
        order.reference,
        FAILED if problems else PASSED,
        cosines,
        psnr,
        ssim,
        *files,
        problems,
    )


def _unavailable(order: Order, chosen: dict[str, str], precision: str, backend: str) -> str | None:
    """Why the run cannot be made here, None if it can; emulation is of `precision` itself, at least."""
    if backend == emulation.BACKEND and precision not in emulation.PRECISIONS:
        return f"{precision} needs no emulation"
    places = {name: _place(chosen[name], backend) for name in chosen}
    reasons = (check.unavailable(order.bundle, name, p, places[name]) for name, p in chosen.items())
    found = ((name, reason) for name, reason in zip(chosen, reasons) if reason is not None)
    return next((f"{name} {chosen[name]}: {reason}" for name, reason in found), None)


def _place(precision: str, backend: str) -> str:
    """The backend of one component: beside emulated ones, fp32 runs as it is."""
    plain = backend == emulation.BACKEND and precision not in emulation.PRECISIONS
    return "onnxruntime" if plain else backend


def _beside(order: Order, precision: str) -> str:
    """The components of a run that are in another precision, for people."""
    others = {name: _nearest(order, name, precision) for name in COMPONENTS}
    texts = [f"{name} {chosen}" for name, chosen in others.items() if chosen != precision]
    return f" ({', '.join(texts)})" if texts else ""


def _pipeline(order: Order, chosen: dict[str, str], backend: str) -> Pipeline:
    if backend == emulation.BACKEND:
        engines = ReferenceEngines(
            order.bundle,
            lambda name: check.engine_loader(order, name, chosen[name], _place(chosen[name], backend))(),
        )
        return Pipeline(order.bundle, engines=engines)
    return Pipeline(order.bundle, backend=backend, precision=chosen, threads=order.threads)


def _nearest(order: Order, name: str, precision: str) -> str:
    """The precision asked for, or what FP8 is built over, where a component has no FP8 of its own."""
    there = order.bundle.components[name]
    base = BASE.get(precision, precision)
    return precision if precision in there else base if base in there else next(iter(there))


def judge(
    precision: str, theirs: Sampled, ours: Sampled, cosines: tuple[float, ...], psnr: float | None
) -> list[str]:
    """What is wrong with a run: nothing if it is within the band of its precision."""
    least_psnr, least_cosine = END_TO_END[precision]
    if not cosines or len(theirs.latents) != len(ours.latents):
        return [f"{len(ours.latents)} steps were made, the reference's {len(theirs.latents)}"]
    if theirs.frames.std() == 0:
        return ["the reference's video is one colour: it tells nothing apart"]
    problems = []
    if not min(cosines) >= least_cosine:
        problems.append(f"latents' cosine {min(cosines):.6f} where {least_cosine} is allowed")
    if psnr is not None and not psnr >= least_psnr:
        problems.append(f"frames' PSNR {psnr:.1f} dB where {least_psnr} is allowed")
    return problems


def _sample(pipeline: Pipeline, order: Order) -> Sampled:
    latents: list[NDArray[np.float32]] = []

    def watch(event: Event) -> None:
        if event.step is not None:
            latents.append(event.step.latents[STREAM].copy())

    case = CASES[1] if order.reference == "torch" else CASES[2]
    request = inputs.request(pipeline, order.plan, case, order.plan.sizes[0])
    frames = np.concatenate(list(pipeline.stream(request, watch).frames))
    return Sampled(latents, frames)


def _cosine(theirs: NDArray[np.float32], ours: NDArray[np.float32]) -> float:
    a, b = theirs.astype(np.float64).ravel(), ours.astype(np.float64).ravel()
    return float(a @ b) / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-300)


def frames_psnr(theirs: NDArray[np.uint8], ours: NDArray[np.uint8]) -> float | None:
    """Of 8-bit frames in decibels; None where they are equal."""
    error = float(np.mean((theirs.astype(np.float64) - ours.astype(np.float64)) ** 2))
    return None if error == 0 else 10 * math.log10(255**2 / error)


def frames_ssim(theirs: NDArray[np.uint8], ours: NDArray[np.uint8]) -> float:
    """Mean structural similarity (Wang et al. 2004) of the frames' luma, over even windows of 8x8 pixels."""
    first, second = (_windows(frames @ np.array([0.299, 0.587, 0.114])) for frames in (theirs, ours))
    mean_a, mean_b = first.mean(-1), second.mean(-1)
    covariance = (first * second).mean(-1) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + _C1) / (mean_a**2 + mean_b**2 + _C1)
    structure = (2 * covariance + _C2) / (first.var(-1) + second.var(-1) + _C2)
    return float((luminance * structure).mean())


def _windows(luma: NDArray[np.float64]) -> NDArray[np.float64]:
    """(F,H,W) to (F,H/8,W/8,64); sizes are multiples of 32."""
    f, h, w = luma.shape
    cut = luma.reshape(f, h // _WINDOW, _WINDOW, w // _WINDOW, _WINDOW)
    return cut.transpose(0, 1, 3, 2, 4).reshape(f, h // _WINDOW, w // _WINDOW, _WINDOW**2)


def _show(folder: Path, name: str, theirs: NDArray[np.uint8], ours: NDArray[np.uint8]) -> tuple[str, str]:
    """A strip and a video, the reference above and left, the engines below and right; their names."""
    folder.mkdir(parents=True, exist_ok=True)
    strip, video = f"end-to-end.{name}.png", f"end-to-end.{name}.mp4"
    save_strip(np.concatenate([theirs, ours], axis=1), folder / strip, count=6)
    both = np.concatenate([theirs, ours], axis=2)
    with VideoWriter(folder / video, both.shape[1], both.shape[2], 24.0, {}) as writer:
        for frame in both:
            writer.write(frame)
    return strip, video
