"""What a user asks for: a frozen request, whose values are checked when it is made."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltxrt.engines.errors import InputError, setting
from ltxrt.engines.parsing.text import quoted
from ltxrt.runtime.media.condition import Condition
from ltxrt.runtime.media.given import Media, kept_media, shown
from ltxrt.runtime.noise.cuda import GPUS
from ltxrt.runtime.request import kinds
from ltxrt.runtime.request.fields import DRAW_SEED, VAE_MEMORY, check

SEED_BITS = 32  # of a seed that is drawn: torch's CPU generator reads no more


@dataclass(frozen=True)
class Request:
    """A video to make. None means the preset's value; `preset` names one of the bundle's.

    Raises InputError, about the setting, for values that no model takes (`fields` has their bounds).

    The fields of a pass (steps … cfg_star) are the first pass's, and `stochastic` is both passes';
    `second_pass` holds those of the second, where `two_passes` or the preset has one, and may hold
    `tone_map`, which comes after it. Of two passes made one (`two_passes` False) the first runs to its end:
    the preset's skip_final made it stop early for the second. A guidance list may be given as one number; no
    guidance_timesteps is ().

    image: the first frame; conditions: images and videos at any frames; input_video: a video to start from,
    of which the last `denoise_strength` of the steps, or all but `skip_initial`, make something new;
    preparation: how images are made to fit, one of `preparation.PREPARATIONS`, None for the reference's own;
    seed: None or -1 draws one, which the request then holds: made again, or recorded, it is the same video;
    vae_memory: bytes that the autoencoder's activations may take, above which it works in tiles; generator:
    whose random numbers the seed stands for, torch's on the CPU or on a `gpu` of `noise_cuda.GPUS`;
    noise_layout: as `official` or `diffusers` draw the initial noise, None for the reference's; noise_dtype:
    in which they draw it, bf16 as the official pipeline in its default precision; noise: initial latents (1,
    C, f, h, w) float32 of the first pass, or a .npy file, instead of the seed's, to compare with another
    implementation; timesteps: explicit sigmas in place of `steps` of the schedule.

    Images and videos are files, images of Pillow, (H,W,3) or (F,H,W,3) uint8 of any size, or (3,H,W) or
    (3,F,H,W) float32 in −1..1 of the video's size, which are used as they are (`media.given`).
    """

    prompt: str
    negative_prompt: str | None = None
    preset: str = "default"
    image: Media | None = None
    image_strength: float = 1.0
    conditions: tuple[Condition, ...] = ()
    input_video: Media | None = None
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
    seed: int | None = 0
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
        if self.seed is None or (kinds.is_whole(self.seed) and self.seed == DRAW_SEED):
            object.__setattr__(self, "seed", secrets.randbits(SEED_BITS))
        for name in ("image", "input_video"):
            object.__setattr__(self, name, kept_media(getattr(self, name), name))
        check(vars(self))
        _check_conditions(self.conditions)
        if self.gpu not in (None, *GPUS):
            raise InputError(f"{setting('gpu')} {quoted(self.gpu)}: must be one of {', '.join(GPUS)}")
        if self.generator == "cuda" and self.gpu is None:
            needed = f"needs the GPU whose numbers to draw: {setting('gpu')} {' | '.join(GPUS)}"
            raise InputError(f"{setting('generator')} cuda {needed}")

    def __repr__(self) -> str:
        """The settings that are not left at their defaults."""
        given = {one.name: value for one in fields(self) if (value := _given(self, one)) is not None}
        prompt = repr(given.pop("prompt"))
        return f"Request({', '.join([prompt, *(f'{name}={shown(given[name])}' for name in given)])})"

    def files(self) -> list[Path]:
        """The files that are read while the request runs."""
        media = (self.image, *(one.source for one in self.conditions), self.input_video)
        return [Path(one) for one in (*media, self.noise) if isinstance(one, str | Path)]


def _check_conditions(conditions: Sequence[Any]) -> None:
    for index, one in enumerate(conditions):
        if not isinstance(one, Condition):
            raise InputError(
                f"{setting('conditions')}[{index}] is of type {type(one).__name__}; give a Condition, as in "
                "Condition('photo.png', frame=96, strength=0.8)"
            )


def _given(request: Request, one: Field) -> Any:
    """The value of a field that is not left at its default, else None."""
    value = getattr(request, one.name)
    default = one.default_factory() if one.default_factory is not MISSING else one.default
    return None if isinstance(value, type(default)) and value == default else value
