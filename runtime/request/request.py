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
from ltxrt.runtime.media.read import Condition
from ltxrt.runtime.noise.cuda import GPUS
from ltxrt.runtime.request.compat import Reference, reference
from ltxrt.runtime.sampling import guidance_plan
from ltxrt.runtime.sampling.latents import VideoShape

# Inclusive bounds, far beyond what the models can do: they catch slips of the finger.
LIMITS: dict[str, tuple[float, float]] = {
    "height": (1, 8192),
    "width": (1, 8192),
    "num_frames": (1, 4097),
    "frame_rate": (1, 240),
    "steps": (1, 1000),
    "seed": (0, 2**64 - 1),
    "image_strength": (0, 1),
    "denoise_strength": (0, 1),
    "decode_timestep": (0, 1),
    "decode_noise_scale": (0, 1),
    "image_noise_scale": (0, 1),
    "guidance_rescale": (0, 1),
    "adain_factor": (0, 1),
    "tone_map": (0, 1),
    "downscale_factor": (0.1, 1),
    "max_tokens": (2, 512),
}
# Bytes of activations; fixed, so that one seed gives one video on every machine: where tiles meet, they are
# blended.
VAE_MEMORY = 8 * 2**30
CHOICES: dict[str, tuple[str | None, ...]] = {
    "sampler": (None, "uniform", "linear_quadratic"),
    "generator": ("cpu", "cuda"),
    "noise_layout": (None, "official", "diffusers"),
    "noise_dtype": ("f32", "bf16"),
}
PASS_FIELDS = tuple(f.name for f in fields(Pass))
LISTS = ("guidance_scale", "stg_scale", "rescaling_scale")
PASS_GROUPS = ("", "second_pass")  # where a request has the settings of each pass


@dataclass(frozen=True)
class Request:
    """A video to make. None means the preset's value; `preset` names one of the bundle's.

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


@dataclass(frozen=True)
class Settings:
    """A request, and the preset with the request's values in it."""

    request: Request
    preset: Preset
    reference: Reference

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
    """Fill what `request` leaves open from its preset, and check all of it.

    Raises InputError that names the setting, what was given and what is allowed.
    """
    if request.preset not in presets:
        raise InputError(
            f"{setting('preset')} {quoted(request.preset)}: this bundle has {', '.join(presets)}"
        )
    habits = _habits(request)
    preset = _merged(request, presets[request.preset], habits)
    if not request.prompt.strip():
        raise InputError(
            f"{setting('prompt')} is empty; describe the video, for example 'waves break on a rocky shore'"
        )
    check_text("prompt", request.prompt)
    check_text("negative_prompt", preset.negative_prompt)
    for name, (low, high) in LIMITS.items():
        value = getattr(preset if hasattr(preset, name) else request, name, None)
        if value is not None:
            check_range(name, value, low, high)
    settings = Settings(request, preset, habits)
    settings.video.check(vae)
    return settings


def _habits(request: Request) -> Reference:
    """The reference's habits, with the layout of the noise that was asked for."""
    for name, allowed in CHOICES.items():
        if getattr(request, name) not in allowed:
            shown = ", ".join(a for a in allowed if a is not None)
            raise InputError(f"{setting(name)} {quoted(getattr(request, name))}: must be one of {shown}")
    if request.generator == "cuda" and request.gpu is None:
        raise InputError(
            f"{setting('generator')} cuda needs the GPU whose numbers to draw: "
            f"{setting('gpu')} {' | '.join(GPUS)}"
        )
    habits = reference(request.reference)
    if request.noise_layout is None:
        return habits
    return replace(habits, token_noise=request.noise_layout == "official")


def check_range(name: str, value: float, low: float, high: float) -> None:
    """InputError unless low ≤ value ≤ high; nothing is converted, because an int may be too large for it."""
    if not low <= value <= high:  # NaN compares false
        raise InputError(f"{setting(name)} {quoted(value)}: must be between {low:g} and {high:g}")


def check_text(name: str, text: str) -> None:
    """Refuse bytes of another encoding than UTF-8, as Python keeps them from a command line."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        given = quoted(text[max(error.start - 20, 0) : error.end + 20])
        raise InputError(f"{setting(name)} is no UTF-8 text at {given}; give it in UTF-8") from error


def _merged(request: Request, preset: Preset, habits: Reference) -> Preset:
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
        given["max_tokens"] = habits.tokens(preset.max_tokens)
    if request.adain_factor is None and not habits.adain:
        given["adain_factor"] = 0.0
    return replace(preset, **{**given, "passes": _passes(request, preset, habits)})


def _passes(request: Request, preset: Preset, habits: Reference) -> tuple[Pass, ...]:
    base = [one if habits.stg else _without_stg(one) for one in preset.passes]
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
        whole = replace(base[0], skip_final=0) if len(base) == 2 else base[0]  # nobody takes over from it
        return (overridden(whole, own),)
    shared = {name: own[name] for name in ("stochastic",) if name in own}
    second = {**shared, **{n: v for n, v in request.second_pass.items() if n != "tone_map"}}
    if unknown := [name for name in second if name not in PASS_FIELDS]:
        raise InputError(
            f"{setting('second_pass')} {quoted(unknown[0])}: not a field of a pass; "
            f"they are {', '.join(PASS_FIELDS)}"
        )
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
        n: (v,) if n in LISTS and isinstance(v, int | float) else v for n, v in values.items()
    }
    if given.get("guidance_timesteps") == ():
        given["guidance_timesteps"] = None
    if "steps" in given:
        given["timesteps"] = None
    if given.get("timesteps") is not None:
        given.update(skip_initial=0, skip_final=0)
    changed = dataclasses.replace(one, **given)
    changed = replace(changed, steps=len(changed.timesteps) if changed.timesteps else changed.steps)
    check_range("steps", changed.steps, *LIMITS["steps"])
    guidance_plan.check(guidance_lists(changed))
    return changed


def guidance_lists(one: Pass) -> guidance_plan.GuidanceLists:
    """The guidance part of a pass."""
    return guidance_plan.GuidanceLists(
        one.guidance_scale,
        one.stg_scale,
        one.rescaling_scale,
        one.guidance_timesteps,
        one.skip_block_list,
        one.stg_mode,
        one.cfg_star,
    )
