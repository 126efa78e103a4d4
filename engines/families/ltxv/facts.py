"""A bundle's facts about its model: everything the runtime needs, so that it never depends on a version's
name.

Frozen dataclasses; `ltxrt.engines.parsing.schema` reads them from JSON. The fields' bounds are far beyond any
release: they limit everything that is computed from an untrusted bundle's numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from ltxrt.engines.parsing.schema import Most, OneOf, Within

__all__ = [
    "Facts", "NoiseMaps", "Pass", "Preset", "SchedulerFacts", "TextEncoderFacts", "TransformerFacts",
    "VaeFacts",
]  # fmt: skip

Layers = Annotated[int, Within(1, 512)]
Width = Annotated[int, Within(1, 1 << 16)]
Unit = Annotated[float, Within(0, 1)]
Positive = Annotated[float, Within(1e-9, 1e9)]
Statistic = Annotated[float, Within(-1e6, 1e6)]
LARGEST_WIDTH = 1 << 15  # of the transformer; releases have up to 4096
Steps = Annotated[int, Within(1, 1000)]
Skipped = Annotated[int, Within(0, 1000)]
Scales = Annotated[tuple[Annotated[float, Within(0, 100)], ...], Most(1000, least=1)]
Blocks = Annotated[tuple[Annotated[int, Within(0, 511)], ...], Most(512)]
Side = Annotated[int, Within(1, 8192)]


@dataclass(frozen=True)
class TransformerFacts:
    """The diffusion transformer: sizes, rotary table parameters, timestep scale."""

    layers: Layers
    heads: Annotated[int, Within(1, 1024)]
    head_size: Annotated[int, Within(2, 1024)]
    in_channels: Annotated[int, Within(1, 4096)]
    out_channels: Annotated[int, Within(1, 4096)]
    caption_channels: Width  # width of the text encoder's hidden states
    rope_theta: Positive
    rope_max_positions: tuple[Positive, Positive, Positive]  # seconds, pixels, pixels
    causal_rope: bool  # first latent frame covers one pixel frame, not eight
    timestep_scale: Positive  # factor from sigma 0..1 to the sinusoid's argument

    @property
    def width(self) -> int:
        """D, the residual stream's width."""
        return self.heads * self.head_size

    def problem(self) -> str:
        """What makes these numbers impossible together, "" where nothing does."""
        if self.width <= LARGEST_WIDTH and self.width % 2 == 0:
            return ""
        return f"{self.heads} heads of {self.head_size} must give an even width up to {LARGEST_WIDTH}"


@dataclass(frozen=True)
class NoiseMaps:
    """`count` Gaussian maps of (scale·h, scale·w) that the decoder injects, in the order of use."""

    scale: Annotated[int, Within(1, 64)]
    count: Annotated[int, Within(1, 64)]


@dataclass(frozen=True)
class VaeFacts:
    """The video autoencoder: compression, latent statistics, the decoder's extra inputs."""

    latent_channels: Annotated[int, Within(1, 4096)]
    spatial_compression: Annotated[int, Within(1, 256)]
    temporal_compression: Annotated[int, Within(1, 64)]
    latents_mean: tuple[Statistic, ...]
    latents_std: tuple[Statistic, ...]
    timestep_conditioning: bool
    noise_maps: Annotated[tuple[NoiseMaps, ...], Most(16)]

    def problem(self) -> str:
        """What makes these numbers impossible together, "" where nothing does."""
        if not len(self.latents_mean) == len(self.latents_std) == self.latent_channels:
            return f"latents_mean and latents_std must have {self.latent_channels} values, one per channel"
        if len({maps.scale for maps in self.noise_maps}) < len(self.noise_maps):
            return "noise_maps has two entries of one scale"
        return ""


@dataclass(frozen=True)
class TextEncoderFacts:
    """The text encoder: width of its hidden states, size of its vocabulary."""

    width: Width
    vocab_size: Annotated[int, Within(1, 1 << 24)]
    layers: Layers


@dataclass(frozen=True)
class SchedulerFacts:
    """The checkpoint's own schedule of sigmas."""

    sampler: Annotated[str, OneOf("uniform", "linear_quadratic")]  # "uniform" | "linear_quadratic"
    shift: Annotated[str, OneOf("sd3")] | None  # "sd3" (token-count dependent) or none
    terminal: Unit | None  # the shifted schedule is stretched to end here
    allowed_steps: (
        Annotated[tuple[Unit, ...], Most(1000)] | None
    )  # the only sigmas that the checkpoint was trained on


@dataclass(frozen=True)
class Pass:
    """One denoising pass: its schedule and guidance.

    The lists of guidance have one entry for all steps, or as many as `guidance_timesteps`, the descending
    sigmas from which on each entry applies.
    """

    steps: Steps
    timesteps: (
        Annotated[tuple[Unit, ...], Most(1000)] | None
    )  # explicit sigmas instead of `steps` of the schedule
    skip_initial: Skipped  # steps of the schedule that are skipped at its beginning
    skip_final: Skipped
    guidance_scale: Scales
    stg_scale: Scales
    rescaling_scale: Scales
    guidance_timesteps: Annotated[tuple[Unit, ...], Most(1000)] | None
    skip_block_list: Annotated[
        tuple[Blocks, ...], Most(1000, least=1)
    ]  # blocks that spatiotemporal guidance perturbs
    stg_mode: str  # attention_values | attention_skip | transformer_block
    cfg_star: bool  # the negative velocity is projected onto the positive one
    stochastic: bool  # each step predicts the clean latents and adds new noise


@dataclass(frozen=True)
class Preset:
    """A checkpoint's default request; every field can be overridden.

    With two passes the first runs at `downscale_factor` of the size, the latent upsampler doubles it, and the
    decoded frames are scaled to the requested size.
    """

    passes: Annotated[tuple[Pass, ...], Most(2, least=1)]
    downscale_factor: Annotated[float, Within(0.1, 1)]
    adain_factor: Unit  # share of the first pass's statistics in upsampled latents
    tone_map: Unit  # compression of the latents before decoding, 0 is none
    height: Side
    width: Side
    num_frames: Annotated[int, Within(1, 4097)]
    frame_rate: Annotated[float, Within(1, 240)]
    negative_prompt: str
    max_tokens: Annotated[int, Within(2, 512)]
    decode_timestep: Unit
    decode_noise_scale: Unit
    image_noise_scale: Unit  # conditioning noise, ×sigma²


@dataclass(frozen=True)
class Facts:
    """All of a bundle's facts; a part is None if no component of the bundle needs it."""

    transformer: TransformerFacts | None
    vae: VaeFacts | None
    text_encoder: TextEncoderFacts | None
    scheduler: SchedulerFacts | None
