"""The settings as keywords of a pipeline's call, for type checkers and editors."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from ltxrt.engines.errors import UnknownKeywordError, setting
from ltxrt.engines.parsing.near import nearest
from ltxrt.engines.parsing.text import quoted
from ltxrt.runtime.media.condition import Condition
from ltxrt.runtime.media.given import Media
from ltxrt.runtime.request.fields import SETTINGS


class Keywords(TypedDict, total=False):
    """Every setting but the prompt, as `Request` has it; a test compares the two."""

    negative_prompt: str | None
    preset: str
    image: Media | None
    image_strength: float
    conditions: tuple[Condition, ...]
    input_video: Media | None
    denoise_strength: float | None
    preparation: str | None
    height: int | None
    width: int | None
    num_frames: int | None
    frame_rate: float | None
    steps: int | None
    timesteps: tuple[float, ...] | None
    skip_initial: int | None
    skip_final: int | None
    guidance_scale: float | tuple[float, ...] | None
    stg_scale: float | tuple[float, ...] | None
    rescaling_scale: float | tuple[float, ...] | None
    guidance_timesteps: tuple[float, ...] | None
    skip_block_list: tuple[tuple[int, ...], ...] | None
    stg_mode: str | None
    cfg_star: bool | None
    stochastic: bool | None
    two_passes: bool | None
    second_pass: Mapping[str, Any]
    downscale_factor: float | None
    adain_factor: float | None
    tone_map: float | None
    guidance_rescale: float
    sampler: str | None
    seed: int | None
    decode_timestep: float | None
    decode_noise_scale: float | None
    image_noise_scale: float | None
    max_tokens: int | None
    reference: str
    vae_memory: int
    generator: str
    gpu: str | None
    noise_layout: str | None
    noise_dtype: str
    noise: Path | str | NDArray[np.float32] | None


_PLAIN = re.compile("[a-z][a-z0-9_]{0,60}")
# Other names of a setting: those that files know it by.
_ALSO = {key: row.name for row in SETTINGS.values() for key in row.keys}


def check_known(given: Iterable[str], known: Iterable[str], also: Mapping[str, str] | None = None) -> None:
    """Raise UnknownKeywordError for the first of `given` that is not `known`, with the nearest one.

    `also` has other names of known ones.
    """
    names, others = list(known), dict(also or {})
    for name in given:
        if name in names:
            continue
        near = nearest(name, (*names, *others))
        hint = f"did you mean {others.get(near, near)}?" if near else f"they are {', '.join(names)}"
        label = setting(name) if _PLAIN.fullmatch(name) else quoted(name, 60)
        raise UnknownKeywordError(f"{label} is no keyword that is known here; {hint}")


def check_settings(given: Iterable[str]) -> None:
    """Raise UnknownKeywordError for a keyword that is no setting."""
    check_known(given, SETTINGS, _ALSO)
