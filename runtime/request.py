"""What a user asks for: a frozen request, completed from the bundle's preset and checked before any work."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ltxrt.engines.errors import InputError
from ltxrt.engines.facts import Preset, VaeFacts
from ltxrt.runtime.latents import VideoShape
from ltxrt.runtime.reference import reference

# Inclusive bounds, far beyond what the models can do: they catch slips of the finger.
LIMITS: dict[str, tuple[float, float]] = {
    "height": (1, 8192),
    "width": (1, 8192),
    "num_frames": (1, 4097),
    "frame_rate": (1, 240),
    "steps": (1, 1000),
    "guidance_scale": (0, 100),
    "seed": (0, 2**64 - 1),
    "image_strength": (0, 1),
    "decode_timestep": (0, 1),
    "decode_noise_scale": (0, 1),
    "image_noise_scale": (0, 1),
    "max_tokens": (2, 512),
}


@dataclass(frozen=True)
class Request:
    """A video to make. None means the bundle's preset.

    image: a file, or pixels (3, height, width) float32 in −1..1, that becomes the first frame; noise: initial
    latents (1, C, f, h, w) float32 instead of the seed's, to compare with another implementation; timesteps:
    explicit sigmas in place of `steps` of the schedule.
    """

    prompt: str
    negative_prompt: str | None = None
    image: Path | str | NDArray[np.float32] | None = None
    image_strength: float = 1.0
    height: int | None = None
    width: int | None = None
    num_frames: int | None = None
    frame_rate: float | None = None
    steps: int | None = None
    guidance_scale: float | None = None
    seed: int = 0
    decode_timestep: float | None = None
    decode_noise_scale: float | None = None
    image_noise_scale: float | None = None
    stochastic: bool | None = None
    timesteps: tuple[float, ...] | None = None
    max_tokens: int | None = None
    reference: str = "official"
    noise: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Settings:
    """A request with every value filled in."""

    prompt: str
    negative_prompt: str
    image: Path | str | NDArray[np.float32] | None
    image_strength: float
    height: int
    width: int
    num_frames: int
    frame_rate: float
    steps: int
    guidance_scale: float
    seed: int
    decode_timestep: float
    decode_noise_scale: float
    image_noise_scale: float
    stochastic: bool
    timesteps: tuple[float, ...] | None
    max_tokens: int
    reference: str
    noise: NDArray[np.float32] | None

    @property
    def guided(self) -> bool:
        """Whether classifier-free guidance runs, and so a negative prompt is needed."""
        return self.guidance_scale > 1

    @property
    def video(self) -> VideoShape:
        return VideoShape(self.num_frames, self.height, self.width)


def complete(request: Request, preset: Preset, vae: VaeFacts) -> Settings:
    """Fill what `request` leaves open from `preset`, and check all of it.

    Raises InputError that names the flag, what was given and what is allowed.
    """
    values = {f.name: getattr(request, f.name) for f in fields(request)}
    values = {n: getattr(preset, n) if v is None and hasattr(preset, n) else v for n, v in values.items()}
    if request.max_tokens is None:
        values["max_tokens"] = reference(request.reference).tokens(preset.max_tokens)
    settings = Settings(**{**values, **_steps(request, preset)})
    if not settings.prompt.strip():
        raise InputError("--prompt is empty; describe the video, for example 'waves break on a rocky shore'")
    for name, (low, high) in LIMITS.items():
        check_range(name, getattr(settings, name), low, high)
    settings.video.check(vae)
    return replace(settings, noise=_checked_noise(settings, vae))


def _steps(request: Request, preset: Preset) -> dict[str, object]:
    """`steps` and `timesteps`, one of which follows from the other; the request's go before the preset's."""
    if request.steps is not None and request.timesteps is not None:
        raise InputError("--steps and --timesteps exclude each other; give one of them")
    timesteps = request.timesteps if request.steps is None else ()
    if timesteps is None:
        timesteps = preset.timesteps
    steps = preset.steps if request.steps is None else request.steps
    return {"timesteps": timesteps or None, "steps": len(timesteps) if timesteps else steps}


def check_range(name: str, value: float, low: float, high: float) -> None:
    if not (math.isfinite(value) and low <= value <= high):
        raise InputError(f"--{name.replace('_', '-')} {value}: must be between {low} and {high}")


def _checked_noise(settings: Settings, vae: VaeFacts) -> NDArray[np.float32] | None:
    if settings.noise is None:
        return None
    shape = settings.video.latent(vae)
    wanted = (1, vae.latent_channels, shape.frames, shape.height, shape.width)
    if settings.noise.shape != wanted or settings.noise.dtype != np.float32:
        raise InputError(f"noise {settings.noise.dtype} {settings.noise.shape}: must be float32 {wanted}")
    return settings.noise
