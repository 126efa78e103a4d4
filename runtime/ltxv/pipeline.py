"""A prompt to a video: the one place where tokenizer, engines, schedule, guidance and decoding meet.

Stages run one after the other, and each engine is freed before the next is loaded, so that memory holds the
largest component and not their sum; the transformer's file is read while the text encoder runs. Progress,
files and the clock belong to the caller.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self, Unpack

import numpy as np
from numpy.typing import NDArray

from ltxrt.engines import verification
from ltxrt.engines.backend import Engine
from ltxrt.engines.bundle import Bundle, read_bundle
from ltxrt.engines.errors import BundleError, InputError, within
from ltxrt.engines.families.ltxv.facts import SchedulerFacts, TransformerFacts, VaeFacts
from ltxrt.engines.storage import integrity
from ltxrt.runtime.engine_pool import EnginePool, Engines, PoolOptions
from ltxrt.runtime.ltxv import decode, upscale
from ltxrt.runtime.ltxv.prompt import Tokenizer, Tokens
from ltxrt.runtime.ltxv.transformer import Guided, GuidedTransformer, Text
from ltxrt.runtime.media import conditions
from ltxrt.runtime.noise import file as noise_file
from ltxrt.runtime.noise.cpu import Generator, Noise
from ltxrt.runtime.noise.sources import Draws, draws
from ltxrt.runtime.request.request import PASS_GROUPS, Request, Settings, complete, guidance_lists
from ltxrt.runtime.sampling import guidance_plan, rope, schedule
from ltxrt.runtime.sampling.conditioning import distinct_timesteps
from ltxrt.runtime.sampling.conditioning_items import Conditioned, prepare, strip
from ltxrt.runtime.sampling.denoise import Sampling, Step, denoise
from ltxrt.runtime.sampling.guidance_plan import StepGuidance
from ltxrt.runtime.sampling.latents import LatentShape, VideoShape, unpack
from ltxrt.runtime.sampling.numerics import check_finite
from ltxrt.runtime.vae import tiling
from ltxrt.runtime.vae.tiling import WORKSPACE, Tile

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Event:
    """What a watcher is told: a stage begins (`step` None), or one of its `total` steps is done."""

    stage: str
    step: Step | None = None
    total: int = 0


Watch = Callable[[Event], None]


@dataclass(frozen=True)
class Stream:
    """A video that is still being decoded: `frames` yields (n, H, W, 3) uint8, in order, once."""

    frames: Iterator[NDArray[np.uint8]]
    settings: Settings
    truncated: int


@dataclass(frozen=True)
class Video:
    """frames (F, H, W, 3) uint8; the settings that made them; prompt tokens that did not fit."""

    frames: NDArray[np.uint8]
    settings: Settings
    truncated: int


def _unwatched(_event: Event) -> None:
    """The default watcher."""


class Pipeline:
    """A bundle, and the engines that run it.

    `engines` is an `EnginePool` or whatever keeps its protocol (`engine_pool.Engines`); it belongs to the
    caller, who closes it. Without one the pipeline makes its own of the other arguments, which are
    `EnginePool`'s, and frees it at `close` or at the end of a `with` block.
    """

    def __init__(
        self,
        bundle: Path | str | Bundle,
        *,
        engines: Engines | None = None,
        **options: Unpack[PoolOptions],
    ) -> None:
        self.bundle = bundle if isinstance(bundle, Bundle) else read_bundle(bundle)
        if engines is not None and options:
            raise InputError(f"{', '.join(options)}: belong to the engines; give them to the pool instead")
        self._owned = engines is None
        self.engines: Engines = EnginePool(self.bundle, **options) if engines is None else engines
        if self.engines.bundle.root != self.bundle.root:
            raise InputError(
                f"the engines are those of {self.engines.bundle.root} and the bundle is {self.bundle.root}; "
                "make both of one bundle"
            )
        self._report = verification.read(self.bundle)  # before any work, which its state must not cost
        facts = self.bundle.facts
        if facts.transformer is None or facts.vae is None or facts.scheduler is None:
            raise BundleError(f"{self.bundle.root}: says nothing of its transformer, VAE or scheduler")
        self.transformer: TransformerFacts = facts.transformer
        self.vae: VaeFacts = facts.vae
        self.scheduler: SchedulerFacts = facts.scheduler

    def close(self) -> None:
        """Free the engines that were kept; the pipeline can be used again. A pool that was given stays."""
        if self._owned:
            self.engines.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def settings(self, request: Request, components: Collection[str] | None = None) -> Settings:
        """The completed request; raises InputError for what cannot be done, before any engine is loaded.

        `components` are those that will run, by default all that a video takes.
        """
        settings = complete(request, self.bundle.presets, self.vae)
        needed = self._needed(settings) if components is None else components
        for component in needed:
            self.engines.precision(component)
        for number in range(len(settings.preset.passes)):
            self.plan(settings, number)
        self._noise(settings)
        conditions.check(settings, self.vae)
        for component in {"vae_encoder", "vae_decoder"}.intersection(needed):
            self.tile(settings, component, self.shape(settings, len(settings.preset.passes) - 1))
        return settings

    def generate(self, request: Request, watch: Watch = _unwatched) -> Video:
        """All stages, the video whole. `watch` may raise to cancel."""
        stream = self.stream(request, watch)
        return Video(np.concatenate(list(stream.frames)), stream.settings, stream.truncated)

    def stream(self, request: Request, watch: Watch = _unwatched) -> Stream:
        """All stages but the decoder's, which runs while the frames are read. `watch` may raise to cancel."""
        settings = self.settings(request)
        tokens = self._ready(settings, self._needed(settings))
        drawn = draws(settings)
        latents = self._sampled(settings, tokens, drawn, watch)
        frames = decode.frames(settings, self.pixels(settings, latents, drawn.later, watch))
        return Stream(frames, settings, max(t.truncated for t in tokens))

    def latents(self, request: Request, watch: Watch = _unwatched) -> Array:
        """The stages before the decoder's, which need none: the video's latents (1,C,f,h,w), normalised."""
        settings = complete(request, self.bundle.presets, self.vae)
        needed = [component for component in self._needed(settings) if component != "vae_decoder"]
        settings = self.settings(request, needed)
        return self._sampled(settings, self._ready(settings, needed), draws(settings), watch)

    def _ready(self, settings: Settings, needed: Sequence[str]) -> list[Tokens]:
        """The prompts' tokens, once it is sure that all components can be loaded and are intact."""
        for component in needed:
            self.engines.check_available(component)  # what the last stage lacks is said before any work
        tokens = self._tokens(settings)
        for component in needed:
            self.engines.check_intact(component)
        return tokens

    def _sampled(self, settings: Settings, tokens: list[Tokens], drawn: Draws, watch: Watch) -> Array:
        """Latents (1,C,f,h,w) after all passes."""
        watch(Event("text encoder"))
        with self.engines.read_ahead("transformer"):
            text = self.encode_text(settings, tokens)
        latents = self.run_pass(settings, 0, text, self.start(settings, drawn, watch), drawn, watch)
        for number in range(1, len(settings.preset.passes)):
            watch(Event("latent upsampler"))
            latents = self.upsample(settings, latents)
            latents = self.run_pass(settings, number, text, latents, drawn, watch)
        return latents

    def encode_text(self, settings: Settings, tokens: list[Tokens]) -> Text:
        """Hidden states of the prompts, cut to the longest one where the padding cannot be seen anyway."""
        mask = np.concatenate([t.attention_mask for t in tokens])
        ids = np.concatenate([t.input_ids for t in tokens])
        masked = settings.reference.encoder_mask
        if masked:
            longest = int(mask.sum(axis=1).max())
            ids, mask = ids[:, :longest], mask[:, :longest]
        with self.engines.engine("text_encoder") as encoder:
            attention = mask if masked else np.ones_like(mask)
            context = encoder(input_ids=ids, attention_mask=attention)["hidden_states"]
        check_finite(context, "text_encoder", "the prompt")
        return Text(context, mask.astype(np.bool_))

    def run_pass(
        self, settings: Settings, number: int, text: Text, start: Array | None, draws: Draws, watch: Watch
    ) -> Array:
        """Latents (1,C,f,h,w) after the steps of pass `number`, from noise or from a noised `start`."""
        grid = self._initial(settings, number, start, draws.start)
        conditioned = self.condition(settings, number, grid, draws, watch)
        tokens, total = conditioned.tokens, len(self.sigmas(settings, number))
        watch(Event("transformer", total=total))
        for step in self.denoise(settings, number, text, conditioned, draws):
            tokens = strip(step.latents, conditioned.extra)
            watch(Event("transformer", replace(step, latents=tokens), total))
        return unpack(tokens, self.shape(settings, number))

    def condition(
        self, settings: Settings, number: int, grid: Array, draws: Draws, watch: Watch
    ) -> Conditioned:
        """The tokens of pass `number` with the images and videos given, encoded at its size."""
        size, encoded = self.size(settings, number), []
        if settings.conditions:
            watch(Event("image encoder"))
            with self.engines.engine("vae_encoder") as encoder:
                for condition in settings.conditions:
                    pixels = conditions.read(condition, settings, size, self.vae)
                    latents = self._encode(settings, encoder, pixels, draws)
                    encoded.append((conditions.item(condition, pixels), latents))
        causal = settings.reference.rope_is_causal(self.transformer)
        return prepare(grid, encoded, draws.first, settings.preset.frame_rate, causal, self.vae)

    def start(self, settings: Settings, draws: Draws, watch: Watch) -> Array | None:
        """Latents (1,C,f,h,w) of the video to start from, at the first pass's size, if there is one."""
        if settings.request.input_video is None:
            return None
        watch(Event("image encoder"))
        pixels = conditions.read_whole(settings, self.size(settings, 0), self.vae)
        with self.engines.engine("vae_encoder") as encoder:
            return self._encode(settings, encoder, pixels, draws)

    def _encode(self, settings: Settings, encoder: Engine, pixels: Array, draws: Draws) -> Array:
        """Normalised latents (1,C,f,h,w) of pixels (3,F,H,W): the posterior's mean."""
        shape = VideoShape(*pixels.shape[1:]).latent(self.vae)
        tiles = self.tile(settings, "vae_encoder", shape)
        latents = tiling.encode(lambda tile: encoder(pixels=tile)["latents"], pixels[None], tiles, self.vae)
        check_finite(latents, "vae_encoder", "encoding")
        if settings.reference.posterior_drawn:
            draws.later.randn(latents.shape)  # for those that are drawn after it
        return latents

    def denoise(
        self, settings: Settings, number: int, text: Text, conditioned: Conditioned, draws: Draws
    ) -> Iterator[Step]:
        """The transformer's steps over all tokens (1,E+N,C); the engine is loaded while they run."""
        one, facts = settings.preset.passes[number], self.transformer
        _, index = distinct_timesteps(1.0, conditioned.mask)
        tables = rope.tables(conditioned.coords, facts.width, facts.rope_theta, facts.rope_max_positions)
        plan = self.plan(settings, number)
        guided = Guided(plan, facts.layers, one.stg_mode, one.cfg_star, settings.request.guidance_rescale)
        noisy = settings.reference.image_noise and settings.conditions
        sampling = Sampling(
            mask=conditioned.mask,
            image_noise_scale=settings.preset.image_noise_scale if noisy else 0.0,
            stochastic=draws.later.randn if one.stochastic else None,
        )
        sigmas = self.sigmas(settings, number)
        with self.engines.engine("transformer", len(sigmas)) as engine:
            velocity = GuidedTransformer(engine, text, tables, index, guided)
            for result in denoise(velocity, conditioned.tokens, sigmas, draws.first, sampling):
                check_finite(result.latents, "transformer", f"step {result.index + 1} of {len(sigmas)}")
                yield result

    def upsample(self, settings: Settings, latents: Array) -> Array:
        """Latents (1,C,f,h,w) of the first pass at twice the height and width, with the same statistics."""
        with self.engines.engine("latent_upsampler") as upsampler:
            larger = upsampler(latents=latents)["upsampled"]
        check_finite(larger, "latent_upsampler", "the first pass's latents")
        factor = settings.preset.adain_factor
        return upscale.adain(larger, latents, factor) if factor > 0 else larger

    def pixels(
        self, settings: Settings, latents: Array, generator: Generator, watch: Watch
    ) -> Iterator[Array]:
        """Decoded pixels (3,n,H,W) in −1..1 of latents (1,C,f,h,w), a run of frames at a time."""
        watch(Event("image decoder"))
        latents = decode.prepare(settings, self.vae, latents, generator)
        extra = decode.extra_inputs(settings, self.vae, latents, generator)
        tiles = self.tile(settings, "vae_decoder", LatentShape(*latents.shape[2:]))
        with self.engines.engine("vae_decoder") as decoder:

            def call(tile: Array, rows: slice, columns: slice) -> Array:
                return decoder(latents=tile, **decode.of_tile(extra, self.vae, rows, columns))["pixels"]

            yield from tiling.decode(call, latents, tiles, self.vae)

    def tile(self, settings: Settings, component: str, shape: LatentShape) -> Tile:
        """What the autoencoder takes at once within the request's memory; InputError where nothing fits."""
        memory = self.bundle.components[component][self.engines.precision(component)].memory
        if memory is None:
            return Tile.whole(shape)
        return tiling.choose(
            shape,
            settings.request.vae_memory,
            round(memory.fixed_bytes * WORKSPACE),
            memory.bytes_per_cell * WORKSPACE,
            memory.elements_per_cell,
        )

    def size(self, settings: Settings, number: int) -> VideoShape:
        """Pixels of pass `number`; with two, the second's are twice the first's, near the size asked for."""
        video = settings.video
        if len(settings.preset.passes) == 1:
            return video
        factor = settings.preset.downscale_factor
        height, width = upscale.first_pass_size(video.height, video.width, factor, self.vae)
        return VideoShape(video.num_frames, height * 2**number, width * 2**number)

    def shape(self, settings: Settings, number: int) -> LatentShape:
        return self.size(settings, number).latent(self.vae)

    def sigmas(self, settings: Settings, number: int) -> Array:
        """The sigmas that pass `number` runs."""
        one = settings.preset.passes[number]
        with within(PASS_GROUPS[number]):
            if one.timesteps is not None:
                sigmas = schedule.explicit(one.timesteps, self.scheduler.allowed_steps)
            else:
                tokens, facts = self.shape(settings, number).tokens, settings.scheduler(self.scheduler)
                sigmas = schedule.sigmas(facts, one.steps, tokens)
                sigmas = schedule.skip(sigmas, one.skip_initial, one.skip_final)
        strength = settings.request.denoise_strength
        return schedule.part(sigmas, strength) if strength is not None and number == 0 else sigmas

    def plan(self, settings: Settings, number: int) -> tuple[StepGuidance, ...]:
        """The guidance of each step of pass `number`."""
        lists = guidance_lists(settings.preset.passes[number])
        sigmas = self.sigmas(settings, number)
        with within(PASS_GROUPS[number]):
            steps = guidance_plan.plan(lists, sigmas)
            guidance_plan.check_blocks(steps, self.transformer.layers)
        return steps

    def precisions(self, settings: Settings) -> dict[str, str]:
        """The components that this request runs, each with the precision of its graph."""
        return {name: self.engines.precision(name) for name in self._needed(settings)}

    def unproved(self, settings: Settings) -> list[str]:
        """A line for people where components that run were never held against torch; none where all were."""
        precisions = self.precisions(settings)
        names = verification.unproved(self.bundle, self.engines.backend, precisions, self._report)
        if not names:
            return []
        missing = ", ".join(f"{name} {precisions[name]}" for name in names)
        where = f"{missing} on {self.engines.backend}"
        return [f"note: no passing parity report for {where}; ltx-parity check makes one"]

    def _needed(self, settings: Settings) -> list[str]:
        """The components that this request runs."""
        conditions = settings.conditions or settings.request.input_video is not None
        encoder = ["vae_encoder"] if conditions else []
        upsampler = ["latent_upsampler"] if len(settings.preset.passes) > 1 else []
        return ["text_encoder", *encoder, "transformer", *upsampler, "vae_decoder"]

    def _tokens(self, settings: Settings) -> list[Tokens]:
        if self.bundle.tokenizer is None:
            raise BundleError(f"{self.bundle.root}: has no tokenizer; export its text_encoder again")
        record = self.bundle.tokenizer
        integrity.check(self.bundle.root, (record,))
        tokenizer = Tokenizer(self.bundle.path(record), settings.preset.max_tokens, record.sha256)
        positive = tokenizer.encode(settings.request.prompt)
        if not settings.guided:
            return [positive]
        return [tokenizer.encode(settings.preset.negative_prompt, required=False), positive]

    def _noise(self, settings: Settings) -> Array | None:
        """The request's own initial noise, checked."""
        return noise_file.own(settings.request.noise, self.shape(settings, 0).grid(self.vae.latent_channels))

    def _initial(self, settings: Settings, number: int, start: Array | None, noise: Noise) -> Array:
        """Noise (1,C,f,h,w), the request's own in the first pass, mixed into `start` where there is one."""
        shape, drawn = self.shape(settings, number), self._noise(settings) if number == 0 else None
        if drawn is None:
            tokens = settings.reference.initial_noise(noise, self.vae.latent_channels, shape)
            drawn = unpack(tokens, shape)
        return drawn if start is None else upscale.renoise(start, drawn, self.sigmas(settings, number)[0])
