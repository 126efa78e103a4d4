"""LTX-Video, as `ltxrt.parity.families.Family` describes a family.

Three runs of the sampler give the transformer batches of 1, 2 and 3, with an image and without, at every
timestep of a short schedule.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltxrt.engines.bundle import Bundle
from ltxrt.engines.progress import Progress
from ltxrt.parity.check.inputs import Feed, Load, Plan, RecordingEngines, Sampled, Size
from ltxrt.parity.check.tolerances import Allowed
from ltxrt.parity.synthetic.picture import picture
from ltxrt.runtime.engine_pool import Engines
from ltxrt.runtime.ltxv.guidance import STREAM
from ltxrt.runtime.ltxv.pipeline import Pipeline
from ltxrt.runtime.ltxv.results import Event, Watch
from ltxrt.runtime.request.request import Request
from ltxrt.runtime.sampling.latents import VideoShape

REFERENCES: Mapping[str, str] = {"diffusers": "ltxrt.parity.ltxv.diffusers"}
SAMPLED: Sequence[str] = ("text_encoder", "transformer", "vae_decoder")
TOLERANCES: Mapping[tuple[str, str], Allowed] = {}
UPSAMPLERS = ("latent_upsampler", "temporal_upsampler")
PROMPT = "waves break on a rocky shore at sunset, the camera drifts to the left"


@dataclass(frozen=True)
class Case:
    """A sampling run: its name, what its request says beside the size, whether an image is given."""

    name: str
    request: Mapping[str, Any]
    image: bool = False
    perturbed: bool = False


_NO_STG: dict[str, Any] = {"stg_scale": (0.0,), "rescaling_scale": (1.0,), "skip_block_list": ((),)}
_STG: dict[str, Any] = {"stg_scale": (1.0,), "rescaling_scale": (0.7,), "skip_block_list": ((1,),)}
CASES = (
    Case("i2v, batch 2", {"guidance_scale": (3.0,), **_NO_STG}, image=True),
    Case("t2v, batch 3", {"guidance_scale": (3.0,), **_STG}, perturbed=True),
    Case("t2v, batch 1", {"guidance_scale": (1.0,), **_NO_STG}),
)


def called(bundle: Bundle) -> tuple[str, ...]:
    """All components but the upsamplers, which run on nothing that is looked at."""
    return ("text_encoder", "transformer", "vae_encoder", "vae_decoder")


def check_size(bundle: Bundle, size: Size) -> None:
    """Raise InputError for a size that the autoencoder does not make."""
    if bundle.facts.vae is not None:
        height, width, frames = size
        VideoShape(frames, height, width).check(bundle.facts.vae)


def record(bundle: Bundle, load: Load, plan: Plan, reference: str) -> list[Feed]:
    """Run the sampler on the sessions that `load` gives, and keep the inputs of every call."""
    feeds: list[Feed] = []
    cases = _cases(reference)
    runs = max(len(cases), len(plan.sizes))  # every size that was asked for has its turn
    for number in range(runs):
        case, size = cases[number % len(cases)], plan.sizes[number % len(plan.sizes)]
        engines = RecordingEngines(bundle, load, case.name, size)
        watch = _counted(plan, number, runs)
        stream = Pipeline(bundle, engines=engines).stream(_request(bundle, plan, case, size), watch)
        frames = np.concatenate(list(stream.frames))
        if not case.image and "vae_encoder" in bundle.components:
            # The video that was made is a clip; a run with an image shows the encoder one frame only.
            pixels = (frames.astype(np.float32) / 127.5 - 1).transpose(3, 0, 1, 2)[None]
            engines.keep("vae_encoder", {"pixels": np.ascontiguousarray(pixels)})
        decoded = [feed.inputs["latents"] for feed in engines.feeds if feed.component == "vae_decoder"]
        for component in UPSAMPLERS:  # the latents that went to the decoder are what one would get
            if component in bundle.components:
                engines.keep(component, {"latents": decoded[-1]})
        feeds += _by_step(engines.feeds)
    return feeds


def sample(engines: Engines, plan: Plan, reference: str) -> Sampled:
    """Text to video in the plan's first size."""
    latents: list[NDArray[np.float32]] = []
    counted = _counted(plan, 0, 1)

    def watch(event: Event) -> None:
        counted(event)
        if event.step is not None:
            latents.append(event.step.latents[STREAM].copy())

    case = next(case for case in _cases(reference) if not case.image)
    request = _request(engines.bundle, plan, case, plan.sizes[0])
    stream = Pipeline(engines.bundle, engines=engines).stream(request, watch)
    return Sampled(latents, np.concatenate(list(stream.frames)))


def _counted(plan: Plan, number: int, runs: int) -> Watch:
    """Reports the steps of run `number` of some that have equally many."""

    def watch(event: Event) -> None:
        if event.step is not None:
            done = number * event.total + event.step.index + 1
            plan.progress(Progress("sampling", done, runs * event.total, "step"))

    return watch


def _cases(reference: str) -> list[Case]:
    """The runs that a reference makes: diffusers has no spatiotemporal guidance for this model."""
    return [case for case in CASES if reference != "diffusers" or not case.perturbed]


def _request(bundle: Bundle, plan: Plan, case: Case, size: Size) -> Request:
    """The request of a case at a size; a preset whose timesteps are given keeps them."""
    preset = "single-pass" if "single-pass" in bundle.presets else "default"
    image = plan.image if plan.image is not None else picture(size[0], size[1])
    height, width, frames = size
    return Request(
        plan.prompt or PROMPT,
        preset=preset,
        seed=plan.seed,
        height=height,
        width=width,
        num_frames=frames,
        steps=None if bundle.presets[preset].passes[0].timesteps else plan.steps,
        guidance_timesteps=(),
        image=image if case.image else None,
        **case.request,
    )


def _by_step(feeds: Sequence[Feed]) -> list[Feed]:
    """A run's calls; those of the transformer with their step, from 1, and timestep."""
    found, step = [], 0
    for feed in feeds:
        if feed.component == "transformer":
            step += 1
            feed = replace(feed, step=step, timestep=float(feed.inputs["timesteps"].max()))
        found.append(feed)
    return found
