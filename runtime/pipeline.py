"""A prompt to a video: the one place where tokenizer, engines, schedule, guidance and decoding meet.

Stages run one after the other, and each engine is freed before the next is loaded, so that memory holds the
largest component and not their sum. Progress, files and the clock belong to the caller.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ltxrt.engines.backend import BoundEngine, Engine, load_engine
from ltxrt.engines.bundle import Bundle, read_bundle
from ltxrt.engines.errors import BundleError, InputError
from ltxrt.engines.facts import SchedulerFacts, TransformerFacts, VaeFacts
from ltxrt.runtime import guidance, rope, schedule
from ltxrt.runtime.conditioning import distinct_timesteps, frame_zero
from ltxrt.runtime.denoise import Sampling, Step, Velocity, denoise
from ltxrt.runtime.health import check_finite
from ltxrt.runtime.image import load_image
from ltxrt.runtime.latents import LatentShape, normalise, pack, unnormalise, unpack
from ltxrt.runtime.noise import TorchCpuGenerator
from ltxrt.runtime.prompt import Tokenizer, Tokens
from ltxrt.runtime.reference import Reference, reference
from ltxrt.runtime.request import Request, Settings, complete
from ltxrt.runtime.video import to_uint8

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Event:
    """What a watcher is told: a stage begins (`step` None), or one of its `total` steps is done."""

    stage: str
    step: Step | None = None
    total: int = 0


Watch = Callable[[Event], None]


@dataclass(frozen=True)
class Video:
    """frames (F, H, W, 3) uint8; the settings that made them; prompt tokens that did not fit."""

    frames: NDArray[np.uint8]
    settings: Settings
    truncated: int


@dataclass(frozen=True)
class Text:
    """Hidden states (B,T,C) and mask (B,T) bool, negative prompt first where guidance runs."""

    context: Array
    mask: NDArray[np.bool_]


def _unwatched(_event: Event) -> None:
    """The default watcher."""


class Pipeline:
    """A bundle and how its engines are loaded.

    `precision` maps components to one of the bundle's precisions; None takes the only one there is, or what
    the backend prefers.
    """

    def __init__(
        self,
        bundle: Path | str | Bundle,
        *,
        backend: str = "onnxruntime",
        precision: Mapping[str, str] | None = None,
        threads: int | None = None,
    ) -> None:
        self.bundle = bundle if isinstance(bundle, Bundle) else read_bundle(bundle)
        self.backend = backend
        self.precision = dict(precision or {})
        self.threads = threads
        facts = self.bundle.facts
        if facts.transformer is None or facts.vae is None or facts.scheduler is None:
            raise BundleError(f"{self.bundle.root}: says nothing of its transformer, VAE or scheduler")
        self.transformer: TransformerFacts = facts.transformer
        self.vae: VaeFacts = facts.vae
        self.scheduler: SchedulerFacts = facts.scheduler

    def settings(self, request: Request) -> Settings:
        """The completed request; raises InputError for what cannot be done, before any engine is loaded."""
        settings = complete(request, self.bundle.presets["default"], self.vae)
        needed = ["text_encoder", "transformer", "vae_decoder"]
        for component in needed + (["vae_encoder"] if settings.image is not None else []):
            self.bundle.precision(component, self.precision.get(component))
        self.sigmas(settings)
        return settings

    def generate(self, request: Request, watch: Watch = _unwatched) -> Video:
        """All stages. `watch` may raise to cancel."""
        settings = self.settings(request)
        image = None if settings.image is None else self._pixels(settings)
        tokens = self._tokens(settings)
        watch(Event("text encoder"))
        text = self.encode_text(settings, tokens)
        noise = TorchCpuGenerator(settings.seed)
        # The official pipeline seeds torch's global generator alike and draws from it what is not the start.
        later = TorchCpuGenerator(settings.seed)
        tokens_noise = self._initial_noise(settings, noise)
        latents, sampling = tokens_noise, Sampling()
        if image is not None:
            watch(Event("image encoder"))
            latents, sampling = self.condition(settings, tokens_noise, image)
        if settings.stochastic:
            sampling = replace(sampling, stochastic=later.randn)
        watch(Event("transformer", total=settings.steps))
        for step in self.denoise(settings, text, latents, sampling, noise):
            latents = step.latents
            watch(Event("transformer", step, settings.steps))
        watch(Event("image decoder"))
        return Video(self.decode(settings, latents, later), settings, max(t.truncated for t in tokens))

    def encode_text(self, settings: Settings, tokens: list[Tokens]) -> Text:
        """Hidden states of the prompts, cut to the longest one where the padding cannot be seen anyway."""
        mask = np.concatenate([t.attention_mask for t in tokens])
        ids = np.concatenate([t.input_ids for t in tokens])
        habits = reference(settings.reference)
        if habits.encoder_mask:
            longest = int(mask.sum(axis=1).max())
            ids, mask = ids[:, :longest], mask[:, :longest]
        with self._engine("text_encoder") as encoder:
            context = encoder(
                input_ids=ids, attention_mask=mask if habits.encoder_mask else np.ones_like(mask)
            )
        check_finite(context, "text_encoder", "the prompt")
        return Text(context, mask.astype(np.bool_))

    def condition(self, settings: Settings, noise: Array, image: Array) -> tuple[Array, Sampling]:
        """The image's latents in place of the first latent frame's noise; noise and result (1,N,C)."""
        with self._engine("vae_encoder") as encoder:
            encoded = encoder(pixels=image[None, :, None])
        check_finite(encoded, "vae_encoder", "the image")
        grid = unpack(noise, self.shape(settings))
        latents, mask = frame_zero(grid, encoded, settings.image_strength)
        habits = reference(settings.reference)
        scale = settings.image_noise_scale if habits.image_noise else 0.0
        return pack(latents), Sampling(mask=mask, image_noise_scale=scale)

    def denoise(
        self, settings: Settings, text: Text, latents: Array, sampling: Sampling, noise: TorchCpuGenerator
    ) -> Iterator[Step]:
        """The transformer's steps from `latents` (1,N,C); the engine is loaded while they run."""
        mask = np.zeros(latents.shape[:2], np.float32) if sampling.mask is None else sampling.mask
        _, index = distinct_timesteps(1.0, mask)
        with self._engine("transformer") as engine:
            step = self._bind(engine, settings, text, index)
            velocity = _guided(step, settings, batch=len(text.context))
            for result in denoise(velocity, latents, self.sigmas(settings), noise.randn, sampling):
                check_finite(result.latents, "transformer", _where(result.index, settings))
                yield result

    def decode(self, settings: Settings, latents: Array, noise: TorchCpuGenerator) -> NDArray[np.uint8]:
        """Frames of latents (1,N,C)."""
        grid = unpack(latents, self.shape(settings))
        inputs: dict[str, NDArray] = {}
        if self.vae.timestep_conditioning:
            grid = self._mix_decode_noise(settings, grid, noise)
            inputs["timestep"] = np.full(1, settings.decode_timestep, np.float32)
        for maps in self.vae.noise_maps:
            size = (maps.scale * grid.shape[3], maps.scale * grid.shape[4])
            inputs[f"noise_{maps.scale}x"] = np.stack([noise.randn(size) for _ in range(maps.count)])
        with self._engine("vae_decoder") as decoder:
            pixels = decoder(latents=grid, **inputs)
        check_finite(pixels, "vae_decoder", "decoding", frame_axis=2)
        frames = to_uint8(pixels[0])
        check_finite(frames, "vae_decoder", "decoding, after clipping to 0..255")
        return frames

    def shape(self, settings: Settings) -> LatentShape:
        return settings.video.latent(self.vae)

    def sigmas(self, settings: Settings) -> Array:
        if settings.timesteps is not None:
            return schedule.explicit(settings.timesteps, self.scheduler.allowed_steps)
        facts = reference(settings.reference).scheduler(self.scheduler)
        return schedule.sigmas(facts, settings.steps, self.shape(settings).tokens)

    def _engine(self, component: str) -> Engine:
        precision = self.precision.get(component)
        return load_engine(
            self.bundle, component, backend=self.backend, precision=precision, threads=self.threads
        )

    def _tokens(self, settings: Settings) -> list[Tokens]:
        if self.bundle.tokenizer is None:
            raise BundleError(f"{self.bundle.root}: has no tokenizer; export its text_encoder again")
        tokenizer = Tokenizer(self.bundle.path(self.bundle.tokenizer), settings.max_tokens)
        positive = tokenizer.encode(settings.prompt)
        if not settings.guided:
            return [positive]
        return [tokenizer.encode(settings.negative_prompt, required=False), positive]

    def _pixels(self, settings: Settings) -> Array:
        if isinstance(settings.image, str | Path):
            return load_image(Path(settings.image), settings.height, settings.width)
        wanted = (3, settings.height, settings.width)
        pixels = np.asarray(settings.image)
        if pixels.shape != wanted or pixels.dtype != np.float32:
            raise InputError(
                f"image {pixels.dtype} {pixels.shape}: must be float32 {wanted} in -1..1, or a file"
            )
        return pixels

    def _initial_noise(self, settings: Settings, noise: TorchCpuGenerator) -> Array:
        if settings.noise is not None:
            return pack(settings.noise)
        habits: Reference = reference(settings.reference)
        return habits.initial_noise(noise.randn, self.vae.latent_channels, self.shape(settings))

    def _bind(self, engine: Engine, settings: Settings, text: Text, index: NDArray[np.int64]) -> BoundEngine:
        """Everything that stays the same over the steps, given to the engine once."""
        facts, batch = self.transformer, len(text.context)
        causal = reference(settings.reference).rope_is_causal(facts)
        coordinates = rope.coordinates(self.shape(settings), settings.frame_rate, causal, self.vae)
        cos, sin = rope.tables(coordinates, facts.width, facts.rope_theta, facts.rope_max_positions)
        return engine.bind(
            context=text.context,
            context_mask=text.mask,
            rope_cos=cos,
            rope_sin=sin,
            timestep_index=np.repeat(index, batch, axis=0),
            perturbation_mask=np.ones((facts.layers, 3, batch), np.bool_),
        )

    def _mix_decode_noise(self, settings: Settings, latents: Array, noise: TorchCpuGenerator) -> Array:
        """A little noise for the decoder to denoise: z(1 − s) + s·noise."""
        scale = np.float32(settings.decode_noise_scale)
        if scale == 0:
            return latents
        drawn = noise.randn(latents.shape)
        if reference(settings.reference).mix_normalised:
            return latents * (1 - scale) + scale * drawn
        mean, std = self.vae.latents_mean, self.vae.latents_std
        return normalise(unnormalise(latents, mean, std) * (1 - scale) + scale * drawn, mean, std)


def _guided(step: BoundEngine, settings: Settings, batch: int) -> Velocity:
    """The velocity of one step: one call of `batch` samples, combined where there are two."""

    def velocity(latents: Array, timesteps: Array, _index: NDArray[np.int64], number: int) -> Array:
        repeated = {"latents": latents, "timesteps": timesteps}
        result = step(**{name: np.repeat(array, batch, axis=0) for name, array in repeated.items()})
        check_finite(result, "transformer", _where(number, settings))
        if batch == 1:
            return result
        return guidance.combine(result[:1], result[1:], settings.guidance_scale)

    return velocity


def _where(index: int, settings: Settings) -> str:
    return f"step {index + 1} of {settings.steps}"
