"""What a bundle says about its model: everything the runtime needs, and nothing it must guess from a version.

Frozen dataclasses, read strictly from JSON: an unknown, missing or mistyped field is an error that names it.
"""

from __future__ import annotations

import dataclasses
import sys
import types
import typing
from dataclasses import dataclass
from typing import Any, TypeVar

from ltxrt.engines.errors import BundleError

T = TypeVar("T")


@dataclass(frozen=True)
class TransformerFacts:
    """The diffusion transformer: sizes, rotary table parameters, timestep scale."""

    layers: int
    heads: int
    head_size: int
    in_channels: int
    out_channels: int
    caption_channels: int  # width of the text encoder's hidden states
    rope_theta: float
    rope_max_positions: tuple[float, float, float]  # seconds, pixels, pixels
    causal_rope: bool  # first latent frame covers one pixel frame, not eight
    timestep_scale: float  # sigma 0..1 to what the sinusoid embeds

    @property
    def width(self) -> int:
        """D, the residual stream's width."""
        return self.heads * self.head_size


@dataclass(frozen=True)
class NoiseMaps:
    """`count` Gaussian maps of (scale·h, scale·w) that the decoder injects, in the order it uses them."""

    scale: int
    count: int


@dataclass(frozen=True)
class VaeFacts:
    """The video autoencoder: compression, latent statistics, what its decoder is conditioned on."""

    latent_channels: int
    spatial_compression: int
    temporal_compression: int
    latents_mean: tuple[float, ...]
    latents_std: tuple[float, ...]
    timestep_conditioning: bool
    noise_maps: tuple[NoiseMaps, ...]


@dataclass(frozen=True)
class TextEncoderFacts:
    """The text encoder: width of its hidden states, size of its vocabulary."""

    width: int
    vocab_size: int
    layers: int


@dataclass(frozen=True)
class SchedulerFacts:
    """The checkpoint's own schedule of sigmas."""

    sampler: str  # "uniform" | "linear_quadratic"
    shift: str | None  # "sd3" (token-count dependent) or none
    terminal: float | None  # the shifted schedule is stretched to end here
    allowed_steps: tuple[float, ...] | None  # the only sigmas that the checkpoint was trained on


@dataclass(frozen=True)
class Pass:
    """One way down a schedule, and the guidance along it.

    The lists of guidance hold one entry for all steps, or as many as `guidance_timesteps`, the descending
    sigmas from which each entry holds.
    """

    steps: int
    timesteps: tuple[float, ...] | None  # explicit sigmas instead of `steps` of the schedule
    skip_initial: int  # of the schedule's steps, left out at its beginning
    skip_final: int
    guidance_scale: tuple[float, ...]
    stg_scale: tuple[float, ...]
    rescaling_scale: tuple[float, ...]
    guidance_timesteps: tuple[float, ...] | None
    skip_block_list: tuple[tuple[int, ...], ...]  # blocks that spatiotemporal guidance perturbs
    stg_mode: str  # attention_values | attention_skip | transformer_block
    cfg_star: bool  # the negative velocity is projected on the positive one
    stochastic: bool  # each step predicts the clean latents and noises them afresh


@dataclass(frozen=True)
class Preset:
    """A checkpoint's default request; every field can be overridden.

    With two passes the first runs at `downscale_factor` of the size, the latent upsampler doubles it, and the
    decoded frames are scaled to the size asked for.
    """

    passes: tuple[Pass, ...]
    downscale_factor: float
    adain_factor: float  # how far upsampled latents take the first pass's statistics
    tone_map: float  # compression of the latents before decoding, 0 is none
    height: int
    width: int
    num_frames: int
    frame_rate: float
    negative_prompt: str
    max_tokens: int
    decode_timestep: float
    decode_noise_scale: float
    image_noise_scale: float  # conditioning noise, ×sigma²


@dataclass(frozen=True)
class Facts:
    """All of a bundle's facts; a part is None where the bundle has no component that needs it."""

    transformer: TransformerFacts | None
    vae: VaeFacts | None
    text_encoder: TextEncoderFacts | None
    scheduler: SchedulerFacts | None


def to_json(value: Any) -> Any:
    """A dataclass as plain JSON values."""
    return dataclasses.asdict(value)


def from_json(cls: type[T], data: Any, where: str) -> T:
    """Build `cls` from parsed JSON; `where` names the place in the file for error messages."""
    return typing.cast(T, _decode(cls, data, where))


def _decode(kind: Any, data: Any, where: str) -> Any:
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(typing.cast(type, kind), data, where)
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        if data is None and type(None) in args:
            return None
        return _decode(next(a for a in args if a is not type(None)), data, where)
    if origin is tuple:
        return _decode_tuple(args, data, where)
    if origin is dict:
        return _decode_dict(args[1], data, where)
    if kind is Any:
        return data
    if kind is float and type(data) in (int, float):
        if not abs(data) <= sys.float_info.max:
            raise BundleError(f"{where}: expected a finite number, got {data!r:.60}")
        return float(data)
    if type(data) is not kind:
        raise BundleError(f"{where}: expected {kind.__name__}, got {data!r:.60}")
    return data


def _decode_tuple(args: tuple[Any, ...], data: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(data, list | tuple):
        raise BundleError(f"{where}: expected a list, got {data!r:.60}")
    if args[-1] is not Ellipsis and len(data) != len(args):
        raise BundleError(f"{where}: expected {len(args)} values, got {len(data)}")
    kinds = [args[0]] * len(data) if args[-1] is Ellipsis else args
    return tuple(_decode(k, v, f"{where}[{i}]") for i, (k, v) in enumerate(zip(kinds, data)))


def _decode_dict(kind: Any, data: Any, where: str) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise BundleError(f"{where}: expected an object, got {data!r:.60}")
    return {key: _decode(kind, value, f"{where}.{key}") for key, value in data.items()}


def _decode_dataclass(cls: type, data: Any, where: str) -> Any:
    if not isinstance(data, dict):
        raise BundleError(f"{where}: expected an object, got {data!r:.60}")
    hints = typing.get_type_hints(cls)
    fields = {f.name for f in dataclasses.fields(cls)}
    for problem, names in (("unknown", data.keys() - fields), ("missing", fields - data.keys())):
        if names:
            raise BundleError(f"{where}: {problem} field {', '.join(sorted(map(str, names)))}")
    return cls(**{name: _decode(hints[name], data[name], f"{where}.{name}") for name in fields})
