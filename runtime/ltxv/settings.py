"""A request completed from its preset: every setting that a run takes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from ltxrt.engines.bundle import Bundle
from ltxrt.engines.errors import InputError, setting, within
from ltxrt.engines.families.ltxv.facts import Pass, Preset, SchedulerFacts
from ltxrt.engines.parsing.text import quoted
from ltxrt.runtime.ltxv import guidance
from ltxrt.runtime.ltxv.compat import BEHAVIOURS, Behaviour
from ltxrt.runtime.media.condition import Condition
from ltxrt.runtime.request.fields import OF_A_PASS, Scope
from ltxrt.runtime.request.kinds import NUMBERS, is_number
from ltxrt.runtime.request.request import Request
from ltxrt.runtime.sampling.latents import Compression, VideoShape

DEFAULT, UPSAMPLER = "default", "latent_upsampler"
PASS_GROUPS = ("", "second_pass")  # where a request has the settings of each pass
PASS_FIELDS = tuple(f.name for f in dataclasses.fields(Pass))


@dataclass(frozen=True)
class Settings:
    """A request, and the preset with the request's values in it.

    padded: the size that is generated, whole latent cells; the video is its centre and its first frames.
    """

    request: Request
    preset: Preset
    reference: Behaviour
    padded: VideoShape

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
        """The size of the video that is asked for."""
        return VideoShape(self.preset.num_frames, self.preset.height, self.preset.width)

    def scheduler(self, facts: SchedulerFacts) -> SchedulerFacts:
        """The schedule to follow. A sampler asked for by name takes no shift, as the official one."""
        if self.request.sampler is not None:
            return SchedulerFacts(self.request.sampler, None, None, facts.allowed_steps)
        return self.reference.scheduler(facts)


def runnable(request: Request, bundle: Bundle) -> Request:
    """The request as the bundle runs it: its default preset is the one of a single pass where the two of
    "default" would need a latent upsampler that it does not have.

    Whoever asks for two passes, or for one, is taken at their word.
    """
    preset, _ = bundle.model.component(UPSAMPLER).dispensable or ("", "")
    chosen = request.two_passes is not None or request.second_pass or request.preset != DEFAULT
    if chosen or UPSAMPLER in bundle.components or preset not in bundle.presets:
        return request
    return replace(request, preset=preset) if len(bundle.presets[DEFAULT].passes) > 1 else request


def complete(request: Request, presets: Mapping[str, Preset], vae: Compression) -> Settings:
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
    preset = _merged(request, presets[request.preset], behaviour)
    video = VideoShape(preset.num_frames, preset.height, preset.width)
    padded = video.padded(vae) if behaviour.crops else video
    padded.check(vae)
    return Settings(request, preset, behaviour, padded)


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
