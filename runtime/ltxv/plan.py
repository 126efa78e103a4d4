"""The plan of a run of LTX-Video: everything that follows from request and bundle, computed once.

Making the plan refuses impossible requests; afterwards it is only executed. It is plain data, which users and
servers can inspect before any engine is loaded (`Plan.to_json`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ltxrt.engines.bundle import Bundle
from ltxrt.engines.errors import BundleError, setting, within
from ltxrt.engines.families.ltxv.facts import SchedulerFacts, TransformerFacts, VaeFacts
from ltxrt.runtime.engine_pool import Engines
from ltxrt.runtime.ltxv import conditions, guidance, upscale
from ltxrt.runtime.ltxv.settings import (
    PASS_GROUPS,
    UPSAMPLER,
    Settings,
    complete,
    guidance_lists,
    runnable,
)
from ltxrt.runtime.noise import file as noise_file
from ltxrt.runtime.request.request import Request
from ltxrt.runtime.sampling import schedule
from ltxrt.runtime.sampling.conditioning import Item, own_frames
from ltxrt.runtime.sampling.guidance import StepGuidance
from ltxrt.runtime.sampling.latents import LatentShape, VideoShape
from ltxrt.runtime.vae import tiling
from ltxrt.runtime.vae.tiling import Tile

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Model:
    """A bundle's facts about its model."""

    transformer: TransformerFacts
    vae: VaeFacts
    scheduler: SchedulerFacts

    @classmethod
    def of(cls, bundle: Bundle) -> Self:
        """Raises BundleError if a part is missing."""
        facts = bundle.facts
        if facts.transformer is None or facts.vae is None or facts.scheduler is None:
            raise BundleError(f"{bundle.root}: says nothing of its transformer, VAE or scheduler")
        return cls(facts.transformer, facts.vae, facts.scheduler)


@dataclass(frozen=True)
class PassPlan:
    """One denoising pass.

    size: in pixels, shape: in latent cells; sigmas: those that run, float32 values; guidance: of each step;
    own_tokens: how many tokens the conditions have beside the video's.
    """

    size: VideoShape
    shape: LatentShape
    sigmas: tuple[float, ...]
    guidance: tuple[StepGuidance, ...]
    stochastic: bool
    own_tokens: int

    @property
    def schedule(self) -> Array:
        """The sigmas (n,) as float32."""
        return np.array(self.sigmas, np.float32)


@dataclass(frozen=True)
class Plan:
    """A request, completed and checked, and the numbers of its run.

    precisions: the components that run, each with the precision of its graph; encoder_tiles: the tile for
    each latent shape that is encoded; decoder_tile: what the decoder takes at once; causal_rope: whether the
    first latent frame covers one pixel frame in the rotary tables; checked: where each condition goes, and
    frames that were decoded for it; noise: the request's own initial noise (1,C,f,h,w), None for the seed's;
    replaced: whether another preset runs than was asked for, because the bundle lacks a component.
    """

    settings: Settings
    model: Model
    precisions: Mapping[str, str]
    passes: tuple[PassPlan, ...]
    checked: conditions.Checked = dataclasses.field(repr=False, compare=False)
    encoder_tiles: Mapping[LatentShape, Tile]
    decoder_tile: Tile | None
    causal_rope: bool
    noise: Array | None = dataclasses.field(repr=False, compare=False)
    replaced: bool = False

    def __repr__(self) -> str:
        video, rate = self.settings.video, self.settings.preset.frame_rate
        passes = [f"{len(one.sigmas)} at {one.size.width}×{one.size.height}" for one in self.passes]
        runs = ", ".join(f"{name} {precision}" for name, precision in self.precisions.items())
        what = f"{video.num_frames} frames of {video.width}×{video.height} at {rate:g}/s"
        return f"<Plan: {what}; steps: {', '.join(passes)}; {runs}>"

    def encoded(self, number: int | None = None) -> list[LatentShape]:
        """What the image encoder makes: the conditions at the size of pass `number`, or, for None, the source
        video at the first one's."""
        size = self.passes[number or 0].size
        counts = [size.num_frames] if number is None else [item.frames for item in self.checked.items]
        return [dataclasses.replace(size, num_frames=count).latent(self.model.vae) for count in counts]

    def to_json(self) -> dict[str, Any]:
        """The plan as JSON values, without arrays and paths of this machine."""
        facts, preset = self.model.transformer, self.settings.preset
        return {
            "components": dict(self.precisions),
            "passes": [_pass_to_json(one) for one in self.passes],
            "conditions": [dataclasses.asdict(item) for item in self.checked.items],
            "encoder_tiles": [
                {"latents": dataclasses.asdict(shape), "tile": dataclasses.asdict(tile)}
                for shape, tile in self.encoder_tiles.items()
            ],
            "decoder_tile": None if self.decoder_tile is None else dataclasses.asdict(self.decoder_tile),
            "rope": {
                "width": facts.width,
                "theta": facts.rope_theta,
                "max_positions": list(facts.rope_max_positions),
                "causal": self.causal_rope,
                "frame_rate": preset.frame_rate,
            },
            "output": dataclasses.asdict(self.settings.video),
            "generated": dataclasses.asdict(self.settings.padded),
            "seed": self.settings.request.seed if self.noise is None else None,
        }


def notes(plan: Plan) -> list[str]:
    """Settings of a run that have another effect than their user may expect."""
    found, video, padded = [], plan.settings.video, plan.settings.padded
    if plan.replaced:
        default = f"{setting('preset')} {plan.settings.request.preset}"
        found.append(f"note: the bundle has no {UPSAMPLER} for two passes, so that its default is {default}")
    if video != padded:
        found.append(f"note: made as {padded} and cropped to {video}")
    found += _idle(plan.settings.request, len(plan.passes))
    for number, one in enumerate(plan.passes, 1):
        if count := guidance.unperturbed(one.guidance):
            found.append(
                f"note: {count} of the {len(one.guidance)} steps of pass {number} have an "
                f"{setting('stg_scale')} and no block to perturb; it has no effect there "
                f"({setting('skip_block_list')} names blocks)"
            )
    return found


def _idle(request: Request, passes: int) -> list[str]:
    """A note on each setting that was given and that only works together with one that was not."""
    idle = {
        "gpu": (request.gpu is not None and request.generator != "cuda", f"{setting('generator')} cuda"),
        "image_strength": (request.image_strength != 1 and request.image is None, setting("image")),
        "downscale_factor": (
            request.downscale_factor not in (None, 1) and passes < 2,
            setting("two_passes"),
        ),
    }
    return [
        f"note: {setting(name)} has no effect without {needed}"
        for name, (is_so, needed) in idle.items()
        if is_so
    ]


def make(
    request: Request, bundle: Bundle, model: Model, engines: Engines, needed: Collection[str] | None = None
) -> Plan:
    """The plan of a request; loads no engine and reads only the request's files.

    `needed` are the components that will run, by default all that a video takes. Raises InputError for what
    cannot be done, naming the setting.
    """
    taken = runnable(request, bundle) if needed is None else request  # who names components has chosen
    settings = complete(taken, bundle.presets, model.vae)
    names = components(settings) if needed is None else needed
    precisions = {name: engines.precision(name) for name in names}
    passes = [_pass(settings, model, number) for number in range(len(settings.preset.passes))]
    channels = model.vae.latent_channels
    noise = noise_file.own(request.noise, passes[0].shape.grid(channels))
    checked = conditions.checked(settings, model.vae)
    items = checked.items
    passes = [dataclasses.replace(one, own_tokens=_own_tokens(items, one, model.vae)) for one in passes]

    def tile(component: str, shape: LatentShape) -> Tile:
        memory = bundle.components[component][precisions[component]].memory
        return tiling.fitting(shape, request.vae_memory, memory)

    encoded = _encoded(settings, passes, items, model.vae) if "vae_encoder" in precisions else []
    return Plan(
        settings,
        model,
        precisions,
        tuple(passes),
        checked,
        {shape: tile("vae_encoder", shape) for shape in encoded},
        tile("vae_decoder", passes[-1].shape) if "vae_decoder" in precisions else None,
        settings.reference.rope_is_causal(model.transformer),
        noise,
        settings.request.preset != request.preset,
    )


def components(settings: Settings) -> list[str]:
    """The components that a request runs, in their order."""
    encodes = bool(settings.conditions) or settings.request.input_video is not None
    encoder = ["vae_encoder"] if encodes else []
    upsampler = ["latent_upsampler"] if len(settings.preset.passes) > 1 else []
    return ["text_encoder", *encoder, "transformer", *upsampler, "vae_decoder"]


def _pass(settings: Settings, model: Model, number: int) -> PassPlan:
    size = _size(settings, model.vae, number)
    shape, one = size.latent(model.vae), settings.preset.passes[number]
    sigmas = _sigmas(settings, model, number, shape.tokens)
    layers, rescale = model.transformer.layers, settings.request.guidance_rescale
    with within(PASS_GROUPS[number]):
        steps = guidance.plan(guidance_lists(one), sigmas, layers, rescale)
    return PassPlan(size, shape, tuple(map(float, sigmas)), steps, one.stochastic, 0)


def _size(settings: Settings, vae: VaeFacts, number: int) -> VideoShape:
    """Pixels of pass `number`; with two passes, the second's are twice the first's, near that requested."""
    whole = settings.padded
    if len(settings.preset.passes) == 1:
        return whole
    factor = settings.preset.downscale_factor
    height, width = upscale.first_pass_size(whole.height, whole.width, factor, vae)
    return VideoShape(whole.num_frames, height * 2**number, width * 2**number)


def _sigmas(settings: Settings, model: Model, number: int, tokens: int) -> Array:
    one, facts = settings.preset.passes[number], model.scheduler
    with within(PASS_GROUPS[number]):
        if one.timesteps is not None:
            sigmas = schedule.explicit(one.timesteps, facts.allowed_steps)
        else:
            sigmas = schedule.sigmas(settings.scheduler(facts), one.steps, tokens)
            sigmas = schedule.skip(sigmas, one.skip_initial, one.skip_final)
    strength = settings.request.denoise_strength
    return schedule.part(sigmas, strength) if strength is not None and number == 0 else sigmas


def _own_tokens(items: tuple[Item, ...], one: PassPlan, vae: VaeFacts) -> int:
    frames = sum(own_frames(item, vae.temporal_compression) for item in items)
    return frames * one.shape.height * one.shape.width


def _encoded(
    settings: Settings, passes: list[PassPlan], items: tuple[Item, ...], vae: VaeFacts
) -> list[LatentShape]:
    """The shapes of all that is encoded: each condition in each pass, and the source video."""
    pixels = [dataclasses.replace(one.size, num_frames=item.frames) for one in passes for item in items]
    start = [passes[0].size] if settings.request.input_video is not None else []
    return list(dict.fromkeys(size.latent(vae) for size in (*start, *pixels)))


def _pass_to_json(one: PassPlan) -> dict[str, Any]:
    return {**dataclasses.asdict(one), "tokens": one.shape.tokens + one.own_tokens}
