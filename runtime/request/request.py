"""What a user asks for: a frozen request, completed from a preset and checked before any work."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltxrt.engines.errors import InputError, setting, within
from ltxrt.engines.families.ltxv.facts import Pass, Preset, SchedulerFacts, VaeFacts
from ltxrt.engines.parsing.text import quoted
from ltxrt.runtime.ltxv import guidance
from ltxrt.runtime.media.read import Condition
from ltxrt.runtime.noise.cuda import GPUS
from ltxrt.runtime.request.compat import BEHAVIOURS, Behaviour
from ltxrt.runtime.request.fields import OF_A_PASS, VAE_MEMORY, Scope, check
from ltxrt.runtime.request.kinds import NUMBERS, is_number
from ltxrt.runtime.sampling.latents import VideoShape

PASS_GROUPS = ("", "second_pass")  # where a request has the settings of each pass
PASS_FIELDS = tuple(f.name for f in dataclasses.fields(Pass))


@dataclass(frozen=True)
class Request:
    """A video to make. None means the preset's value; `preset` names one of the bundle's.

    Raises InputError, about the setting, for values that no model takes (`fields` has their bounds).

    The fields of a pass (steps … cfg_star) are the first pass's, and `stochastic` is both passes';
    `second_pass` holds those of the second, where `two_passes` or the preset has one, and may hold
    `tone_map`, which comes after it. Of two passes made one (`two_passes` False) the first runs to its end:
    the preset's skip_final made it stop early for the second. A guidance list may be given as one number; no
    guidance_timesteps is ().

    image: a file, or pixels (3, height, width) float32 in −1..1, that becomes the first frame; conditions:
    images and videos at any frames; input_video: a file or pixels (3, F, height, width) to start from, of
    which the last `denoise_strength` of the steps, or all but `skip_initial`, make something new;
    preparation: how images are made to fit, one of `preparation.PREPARATIONS`, None for the reference's own;
    vae_memory: bytes that the autoencoder's activations may take, above which it works in tiles; generator:
    whose random numbers the seed stands for, torch's on the CPU or on a `gpu` of `noise_cuda.GPUS`;
    noise_layout: as `official` or `diffusers` draw the initial noise, None for the reference's; noise_dtype:
    in which they draw it, bf16 as the official pipeline in its default precision; noise: initial latents (1,
    C, f, h, w) float32 of the first pass, or a .npy file, instead of the seed's, to compare with another
    implementation; timesteps: explicit sigmas in place of `steps` of the schedule.
    """

    prompt: str
    negative_prompt: str | None = None
    preset: str = "default"
    image: Path | str | NDArray[np.float32] | None = None
    image_strength: float = 1.0
    conditions: tuple[Condition, ...] = ()
    input_video: Path | str | NDArray[np.float32] | None = None
    denoise_strength: float | None = None
    preparation: str | None = None
    height: int | None = None
    width: int | None = None
    num_frames: int | None = None
    frame_rate: float | None = None
    steps: int | None = None
    timesteps: tuple[float, ...] | None = None
    skip_initial: int | None = None
    skip_final: int | None = None
    guidance_scale: float | tuple[float, ...] | None = None
    stg_scale: float | tuple[float, ...] | None = None
    rescaling_scale: float | tuple[float, ...] | None = None
    guidance_timesteps: tuple[float, ...] | None = None
    skip_block_list: tuple[tuple[int, ...], ...] | None = None
    stg_mode: str | None = None
    cfg_star: bool | None = None
    stochastic: bool | None = None
    two_passes: bool | None = None
    second_pass: Mapping[str, Any] = field(default_factory=dict)
    downscale_factor: float | None = None
    adain_factor: float | None = None
    tone_map: float | None = None
    guidance_rescale: float = 0.0
    sampler: str | None = None
    seed: int = 0
    decode_timestep: float | None = None
    decode_noise_scale: float | None = None
    image_noise_scale: float | None = None
    max_tokens: int | None = None
    reference: str = "official"
    vae_memory: int = VAE_MEMORY
    generator: str = "cpu"
    gpu: str | None = None
    noise_layout: str | None = None
    noise_dtype: str = "f32"
    noise: Path | str | NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.prompt, str) and not self.prompt.strip():
            example = "describe the video, for example 'waves break on a rocky shore'"
            raise InputError(f"{setting('prompt')} is empty; {example}")
        check(vars(self))
        if self.gpu not in (None, *GPUS):
            raise InputError(f"{setting('gpu')} {quoted(self.gpu)}: must be one of {', '.join(GPUS)}")
        if self.generator == "cuda" and self.gpu is None:
            needed = f"needs the GPU whose numbers to draw: {setting('gpu')} {' | '.join(GPUS)}"
            raise InputError(f"{setting('generator')} cuda {needed}")


@dataclass(frozen=True)
class Settings:
    """A request, and the preset with the request's values in it."""

    request: Request
    preset: Preset
    reference: Behaviour

    @property
    def guided(self) -> bool:
        """Whether classifier-free guidance runs at some step, and so a negative prompt is needed."""
        return any(scale > 1 for one in self.preset.passes for scale in one.guidance_scale)

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """The request's conditions, its image first."""
        request = self.request
        if request.image is None:
            return request.conditions
        image = Condition(request.image, 0, request.image_strength, given_as="image")
        return image, *request.conditions

    @property
    def video(self) -> VideoShape:
        return VideoShape(self.preset.num_frames, self.preset.height, self.preset.width)

    def scheduler(self, facts: SchedulerFacts) -> SchedulerFacts:
        """The schedule to follow. A sampler asked for by name takes no shift, as the official one."""
        if self.request.sampler is not None:
            return SchedulerFacts(self.request.sampler, None, None, facts.allowed_steps)
        return self.reference.scheduler(facts)


def complete(request: Request, presets: Mapping[str, Preset], vae: VaeFacts) -> Settings:
    """Fill what `request` leaves open from its preset, and check what the preset and the VAE decide.

    Raises InputError that names the setting, what was given and what is allowed.
    """
    if request.preset not in presets:
        raise InputError(
            f"{setting('preset')} {quoted(request.preset)}: this bundle has {', '.join(presets)}"
        )
    behaviour = BEHAVIOURS[request.reference]
    if request.noise_layout is not None:
        behaviour = replace(behaviour, token_noise=request.noise_layout == "official")
    settings = Settings(request, _merged(request, presets[request.preset], behaviour), behaviour)
    settings.video.check(vae)
    return settings


def _merged(request: Request, preset: Preset, behaviour: Behaviour) -> Preset:
    """The preset with the request's values in it."""
    names = [f.name for f in fields(Preset) if hasattr(request, f.name)]
    given = {n: getattr(request, n) for n in names if getattr(request, n) is not None}
    if (tone_map := request.second_pass.get("tone_map")) is not None:
        if request.tone_map not in (None, tone_map):
            raise InputError(
                f"{setting('tone_map')} and {setting('second_pass.tone_map')} are one setting with two "
                "values; give it once"
            )
        given["tone_map"] = tone_map
    if request.max_tokens is None:
        given["max_tokens"] = behaviour.tokens(preset.max_tokens)
    if request.adain_factor is None and not behaviour.adain:
        given["adain_factor"] = 0.0
    return replace(preset, **{**given, "passes": _passes(request, preset, behaviour)})


def _passes(request: Request, preset: Preset, behaviour: Behaviour) -> tuple[Pass, ...]:
    base = [one if behaviour.stg else _without_stg(one) for one in preset.passes]
    two = len(base) == 2 if request.two_passes is None else request.two_passes
    if request.second_pass and not two:
        raise InputError(
            f"{setting('second_pass')} was given but there is one pass; "
            f"add {setting('two_passes')} or drop it"
        )
    if two and (request.downscale_factor or preset.downscale_factor) == 1:
        raise InputError(
            f"{setting('two_passes')} needs a smaller first pass; give {setting('downscale_factor')}, "
            "as in 0.6666666"
        )
    own = {n: getattr(request, n) for n in PASS_FIELDS if getattr(request, n) is not None}
    if not two:
        whole = replace(base[0], skip_final=0) if len(base) == 2 else base[0]  # no pass follows it
        return (overridden(whole, own),)
    shared = {name: own[name] for name in own if OF_A_PASS[name].scope is Scope.BOTH}
    second = {
        **shared,
        **{n: v for n, v in request.second_pass.items() if n in PASS_FIELDS and v is not None},
    }
    first = overridden(base[0], own)
    with within(PASS_GROUPS[1]):
        return first, overridden(base[-1], second)


def _without_stg(one: Pass) -> Pass:
    """diffusers has neither spatiotemporal guidance nor CFG-star."""
    return replace(one, stg_scale=(0.0,), rescaling_scale=(1.0,), skip_block_list=((),), cfg_star=False)


def overridden(one: Pass, values: Mapping[str, Any]) -> Pass:
    """The pass with `values` in it."""
    if values.get("steps") is not None and values.get("timesteps") is not None:
        raise InputError(
            f"{setting('steps')} and {setting('timesteps')} exclude each other; give one of them"
        )
    if values.get("timesteps") is not None and (values.get("skip_initial") or values.get("skip_final")):
        raise InputError(f"{setting('timesteps')} leaves nothing to skip; leave out of it what is not to run")
    given: dict[str, Any] = {
        name: (value,) if OF_A_PASS[name].kind is NUMBERS and is_number(value) else value
        for name, value in values.items()
    }
    if given.get("guidance_timesteps") == ():
        given["guidance_timesteps"] = None
    if "steps" in given:
        given["timesteps"] = None
    if given.get("timesteps") is not None:
        given.update(skip_initial=0, skip_final=0)
    changed = dataclasses.replace(one, **given)
    changed = replace(changed, steps=len(changed.timesteps) if changed.timesteps else changed.steps)
    guidance.check(guidance_lists(changed))
    return changed


def guidance_lists(one: Pass) -> guidance.GuidanceLists:
    """The guidance part of a pass."""
    return guidance.GuidanceLists(
        one.guidance_scale,
        one.stg_scale,
        one.rescaling_scale,
        one.guidance_timesteps,
        one.skip_block_list,
        one.stg_mode,
        one.cfg_star,
    )
