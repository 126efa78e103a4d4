"""The whole sampler on engines beside the whole sampler on the reference, from the same noise."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ltxrt.engines.errors import InputError, LtxrtError
from ltxrt.export.write import BASE
from ltxrt.parity.check import backends, emulation, strip
from ltxrt.parity.check.inputs import ReferenceEngines, Sampled
from ltxrt.parity.check.results import FAILED, PASSED, SKIPPED, EndToEnd
from ltxrt.parity.check.run import Order, Tell
from ltxrt.parity.check.tolerances import END_TO_END
from ltxrt.parity.metrics import cosine, frames_psnr, frames_ssim
from ltxrt.runtime.engine_pool import EnginePool
from ltxrt.runtime.media.write import VideoWriter


def run(order: Order, folder: Path, tell: Tell) -> tuple[EndToEnd, ...]:
    """Text to video, once on the reference and once per precision and backend that can run all of it."""
    names = order.family.SAMPLED
    if not names:
        raise InputError("ltxrt has no sampler for this model; verify its components, without the whole run")
    theirs = _sample(order, ReferenceEngines(order.bundle, order.session), order.reference)
    precisions = dict.fromkeys(p for name in names for p in order.bundle.components.get(name, {}))
    wanted = [p for p in precisions if not order.precisions or p in order.precisions]
    found = []
    for precision in wanted:
        chosen = {name: _nearest(order, name, precision) for name in names}
        others = [f"{name} {other}" for name, other in chosen.items() if other != precision]
        beside = f" ({', '.join(others)})" if others else ""
        for backend in backends.tried(order.backends, precision):
            result = _one(order, chosen, EndToEnd(precision, backend, order.reference), theirs, folder)
            if result.status != SKIPPED:
                reasons = "".join(f": {problem}" for problem in result.problems)
                tell(f"end to end {precision} on {backend}{beside}: {result.status}{reasons}")
            found.append(result)
    return tuple(found)


def status(before: str, runs: Iterable[EndToEnd]) -> str:
    """The report's status: a failed run fails it, a passed one adds nothing, none leaves it unproved."""
    states = {run.status for run in runs}
    if FAILED in states:
        return FAILED
    return before if PASSED in states or before == FAILED else SKIPPED


def _one(order: Order, chosen: Mapping[str, str], base: EndToEnd, theirs: Sampled, folder: Path) -> EndToEnd:
    """`base` with the result of its precision and backend."""
    reason = _unavailable(order, chosen, base.precision, base.backend)
    if reason is not None:
        return replace(base, problems=(reason,))
    try:
        ours = _sample(order, _engines(order, chosen, base.backend), f"{base.precision} on {base.backend}")
    except LtxrtError as error:
        return replace(base, status=FAILED, problems=(str(error),))
    cosines = tuple(cosine(a, b) for a, b in zip(theirs.latents, ours.latents))
    psnr, ssim = frames_psnr(theirs.frames, ours.frames), frames_ssim(theirs.frames, ours.frames)
    problems = tuple(judge(base.precision, theirs, ours, cosines, psnr))
    state = FAILED if problems else PASSED
    image, video = _show(folder, base, theirs.frames, ours.frames)
    return replace(
        base, status=state, cosine_by_step=cosines, psnr=psnr, ssim=ssim, strip=image, video=video,
        problems=problems,
    )  # fmt: skip


def _sample(order: Order, engines: EnginePool, where: str) -> Sampled:
    return order.family.sample(engines, order.sampling(f"end to end {where}"), order.reference)


def _unavailable(order: Order, chosen: Mapping[str, str], precision: str, backend: str) -> str | None:
    """Why the run cannot be made here, None if it can; emulation is of `precision` itself, at least."""
    if backend == emulation.BACKEND and precision not in emulation.PRECISIONS:
        return f"{precision} needs no emulation"
    for name, one in chosen.items():
        reason = backends.unavailable(order.bundle, name, one, _place(one, backend))
        if reason is not None:
            return f"{name} {one}: {reason}"
    return None


def _place(precision: str, backend: str) -> str:
    """The backend of one component: beside emulated ones, fp32 runs as it is."""
    plain = backend == emulation.BACKEND and precision not in emulation.PRECISIONS
    return "onnxruntime" if plain else backend


def _engines(order: Order, chosen: Mapping[str, str], backend: str) -> EnginePool:
    if backend != emulation.BACKEND:
        return EnginePool(order.bundle, backend=backend, precision=chosen, threads=order.threads)
    places = {name: (name, one, _place(one, backend)) for name, one in chosen.items()}
    return ReferenceEngines(
        order.bundle, lambda name: backends.loader(order.bundle, *places[name], order.threads)()
    )


def _nearest(order: Order, name: str, precision: str) -> str:
    """The precision asked for, or what FP8 is built over, where a component has no FP8 of its own."""
    there = order.bundle.components[name]
    base = BASE.get(precision, precision)
    return precision if precision in there else base if base in there else next(iter(there))


def judge(
    precision: str, theirs: Sampled, ours: Sampled, cosines: tuple[float, ...], psnr: float | None
) -> list[str]:
    """What is wrong with a run: nothing if it is within the tolerance of its precision."""
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


def _show(folder: Path, run: EndToEnd, theirs: NDArray[np.uint8], ours: NDArray[np.uint8]) -> tuple[str, str]:
    """A strip and a video, the reference above and left, the engines below and right; their names."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"end-to-end.{run.precision}.{run.backend}"
    image, video = f"{name}.png", f"{name}.mp4"
    strip.save(theirs, ours, (run.reference, f"{run.precision} on {run.backend}"), folder / image)
    both = np.concatenate([theirs, ours], axis=2)
    with VideoWriter(folder / video, both.shape[1], both.shape[2], 24.0, {}) as writer:
        for frame in both:
            writer.write(frame)
    return image, video
