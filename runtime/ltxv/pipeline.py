"""The pipeline of LTX-Video: its stages in order, each on an engine of the pool.

Engines that are not kept are freed before the next one is loaded, so that memory holds the largest component
and not their sum; the transformer's file is read while the text encoder runs. Progress, files and the clock
belong to the caller.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Self, Unpack

import numpy as np
from numpy.typing import NDArray

from ltxrt.engines import verification
from ltxrt.engines.backend import available
from ltxrt.engines.bundle import Bundle, read_bundle
from ltxrt.engines.errors import BundleError, InputError
from ltxrt.engines.progress import Counted, Report, unreported
from ltxrt.engines.storage import integrity
from ltxrt.runtime.call import PromptCall
from ltxrt.runtime.engine_pool import EnginePool, Engines, PoolOptions
from ltxrt.runtime.ltxv import decode, encode, plan, prompt, provenance, transformer, upscale
from ltxrt.runtime.ltxv.guidance import STREAM
from ltxrt.runtime.ltxv.noise import NoiseSources, noise_sources
from ltxrt.runtime.ltxv.plan import Model, Plan
from ltxrt.runtime.ltxv.prompt import Text, Tokenizer, Tokens
from ltxrt.runtime.ltxv.results import Audience, Event, Interruptions, Prepared, Stream, Watch, unwatched
from ltxrt.runtime.ltxv.settings import Settings, complete, runnable
from ltxrt.runtime.noise.cpu import Generator
from ltxrt.runtime.request.keywords import check_known
from ltxrt.runtime.request.provenance import inputs
from ltxrt.runtime.request.request import Request
from ltxrt.runtime.sampling.conditioning import TokenStream
from ltxrt.runtime.sampling.latents import unpack
from ltxrt.runtime.video import Video

Array = NDArray[np.float32]


class Pipeline(PromptCall[Video]):
    """A bundle, and the engines that run it: `Pipeline("bundle")("a lighthouse in fog", seed=7)` is a video.

    `engines` is an `EnginePool` or another implementation of `engine_pool.Engines`; it belongs to the caller,
    who closes it. Without one the pipeline makes its own from the other arguments, which are `EnginePool`'s,
    and frees it at `close` or at the end of a `with` block.

    Raises BundleError for no bundle, InputError for a wrong argument, UnknownKeywordError for an unknown one,
    and MissingPackageError or EngineError for a backend that cannot run here.
    """

    def __init__(
        self,
        bundle: Path | str | Bundle,
        *,
        engines: Engines | None = None,
        **options: Unpack[PoolOptions],
    ) -> None:
        check_known(options, ("engines", *PoolOptions.__annotations__))
        self.bundle = bundle if isinstance(bundle, Bundle) else read_bundle(bundle)
        if engines is not None and options:
            raise InputError(f"{', '.join(options)}: belong to the engines; give them to the pool instead")
        self._owned = engines is None
        self.engines: Engines = _own_pool(self.bundle, options) if engines is None else engines
        if self.engines.bundle.root != self.bundle.root:
            raise InputError(
                f"the engines are those of {self.engines.bundle.root} and the bundle is {self.bundle.root}; "
                "make both of one bundle"
            )
        self._report = verification.read(self.bundle)  # before any work, which its state must not cost
        self.model = Model.of(self.bundle)
        self._texts: dict[tuple[object, ...], Text] = {}
        self._interruptions = Interruptions()

    def interrupt(self) -> None:
        """From any thread: end the runs in progress; they raise InterruptedRunError.

        Calls of engines end at once (`EnginePool.interrupt`; a caller's pool is interrupted for all who share
        it), and a run that is between two calls ends before the next; one that loads an engine, when it is
        loaded.
        """
        self._interruptions.add()
        self.engines.interrupt()

    def close(self) -> None:
        """Free the kept engines, except those of a caller's pool; the pipeline can be used again."""
        self._texts = {}
        if self._owned:
            self.engines.close()

    def preview(self, latents: Array) -> NDArray[np.uint8]:
        """Small pictures (f,h,w,3) of normalised latents (1,C,f,h,w), such as `Event.clean`; nothing is
        decoded.

        Raises InputError for a bundle that has no colours for previews.
        """
        from ltxrt.runtime import preview  # loads Pillow

        return preview.colours(self.bundle, latents)

    def __repr__(self) -> str:
        model = f"{self.bundle.model.title} {self.bundle.version}"
        return f"<Pipeline {str(self.bundle.root)!r}: {model} on {self.engines.backend}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def plan(self, request: Request, components: Collection[str] | None = None) -> Plan:
        """The plan of a request; raises InputError for impossible requests, before any engine is loaded.

        `components` are those that will run, by default all that a video takes.
        """
        if not isinstance(request, Request):
            raise InputError(
                f"the request is of type {type(request).__name__}; give a Request, as in Request('a cat'), "
                "or call the pipeline with the prompt"
            )
        return plan.make(request, self.bundle, self.model, self.engines, components)

    def settings(self, request: Request, components: Collection[str] | None = None) -> Settings:
        """The completed request; raises InputError as `plan` does."""
        return self.plan(request, components).settings

    def generate(
        self, request: Request | Prepared, watch: Watch = unwatched, report: Report = unreported
    ) -> Video:
        """Run all stages; returns the complete video. `watch` and `report` may raise to cancel."""
        ready = request if isinstance(request, Prepared) else self.prepare(request)
        given = inputs(ready.plan.settings.request)  # before the work, during which files may change
        stream = self.stream(ready, watch, report)
        frames = np.concatenate(list(stream.frames))
        metadata = provenance.metadata(stream.plan, self.engines, given)
        return Video(frames, stream.settings, stream.truncated, metadata)

    def prepare(self, request: Request) -> Prepared:
        """What `generate` and `stream` do first, in a fraction of a second: the plan and the prompts' tokens.

        Raises InputError for impossible requests and for components that cannot be loaded.
        """
        made = self.plan(request)
        return Prepared(made, self._tokens(made))

    def stream(
        self,
        request: Request | Prepared,
        watch: Watch = unwatched,
        report: Report = unreported,
        deep: bool = False,
    ) -> Stream:
        """Run all stages; the decoder runs while the frames are read. `watch` and `report` may raise to
        cancel; `deep` frames have 16 bits."""
        ready = request if isinstance(request, Prepared) else self.prepare(request)
        made, told = ready.plan, self._audience(watch, report)
        self._check_intact(made, told.report)
        sources = noise_sources(made.settings)
        latents = self._sampled(made, ready.tokens, sources, told)
        pixels = self.pixels(made, latents, sources.later, told)
        return Stream(decode.frames(made.settings, pixels, deep), made, ready.truncated)

    def latents(self, request: Request, watch: Watch = unwatched, report: Report = unreported) -> Array:
        """Run the stages before the decoder, without loading it: normalised latents (1,C,f,h,w)."""
        request = runnable(request, self.bundle)
        needed = plan.components(complete(request, self.bundle.presets, self.model.vae))
        made = self.plan(request, [component for component in needed if component != "vae_decoder"])
        tokens, told = self._tokens(made), self._audience(watch, report)
        self._check_intact(made, told.report)
        return self._sampled(made, tokens, noise_sources(made.settings), told)

    def encode_prompts(
        self, plans: Iterable[Plan], watch: Watch = unwatched, report: Report = unreported
    ) -> None:
        """Encode the prompts of several plans with one load of the text encoder, for the runs that follow.

        They replace those of an earlier call, and are held until `close`: about 16 kB for a token of a prompt
        or its negative one. All plans are checked before the engine is loaded; none is kept.
        """
        wanted, told = {}, self._audience(watch, report)
        for made in plans:
            one = made.settings.reference.encoder_mask, self._tokens(made)
            self._check_intact(made, told.report)
            wanted[prompt.key(*one)] = one
        self._texts, event = {}, Event("text encoder")
        told(event)
        with self.engines.engine("text_encoder") as encoder:
            done = Counted(told.report, event.stage, len(wanted), "prompt")
            for key, one in wanted.items():
                self._texts[key] = prompt.encode(*one, encoder)
                done()

    def _audience(self, watch: Watch, report: Report) -> Audience:
        """Who hears of a run that begins now; the first report after `interrupt` raises."""
        return Audience(watch, self._interruptions.checked(report))

    def _tokens(self, made: Plan) -> tuple[Tokens, ...]:
        """The prompts' tokens, after checking that all components can be loaded."""
        for component in made.precisions:
            self.engines.check_available(component)  # reports what the last stage lacks before any work
        settings, tokenizer = made.settings, self._tokenizer
        length = settings.preset.max_tokens
        positive = tokenizer.encode(settings.request.prompt, length)
        if not settings.guided:
            return (positive,)
        return tokenizer.encode(settings.preset.negative_prompt, length, required=False), positive

    def _check_intact(self, made: Plan, report: Report) -> None:
        for component in made.precisions:
            self.engines.check_intact(component, report)

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        record = self.bundle.tokenizer
        if record is None:
            raise BundleError(f"{self.bundle.root}: has no tokenizer; export its text_encoder again")
        integrity.check(self.bundle.root, (record,))
        return Tokenizer(self.bundle.path(record), record.sha256)

    def _sampled(self, made: Plan, tokens: Sequence[Tokens], sources: NoiseSources, told: Audience) -> Array:
        """Latents (1,C,f,h,w) after all passes."""
        text = self._text(made, tokens, told)
        latents = None
        if made.settings.request.input_video is not None:
            event = Event("image encoder")
            told(event)
            with self.engines.engine("vae_encoder") as encoder:
                done = Counted(told.report, event.stage, encode.tiles(made), "tile")
                latents = encode.start(made, sources, encoder, done)
        latents = self._pass(made, 0, text, latents, sources, told)
        for number in range(1, len(made.passes)):
            told(Event("latent upsampler"))
            with self.engines.engine("latent_upsampler") as upsampler:
                latents = upscale.upsample(latents, made.settings.preset.adain_factor, upsampler)
            latents = self._pass(made, number, text, latents, sources, told)
        return latents

    def _text(self, made: Plan, tokens: Sequence[Tokens], told: Audience) -> Text:
        one = made.settings.reference.encoder_mask, tokens
        if (known := self._texts.get(prompt.key(*one))) is not None:
            return known
        told(Event("text encoder"))
        with self.engines.read_ahead("transformer"), self.engines.engine("text_encoder") as encoder:
            return prompt.encode(*one, encoder)

    def _pass(
        self, made: Plan, number: int, text: Text, begin: Array | None, sources: NoiseSources, told: Audience
    ) -> Array:
        """Latents (1,C,f,h,w) after the steps of pass `number`, from noise or from a noised `begin`."""
        stream = self.start(made, number, begin, sources, told)
        one, tokens = made.passes[number], stream.tokens
        total = len(one.sigmas)
        event = Event("transformer", None, total, number + 1, len(made.passes), one.shape)
        told(event)
        with self.engines.engine("transformer", total) as engine:
            for step in transformer.steps(made, number, stream, text, sources, engine):
                tokens = step.latents[STREAM][:, stream.own]
                clean = {STREAM: step.clean[STREAM][:, stream.own]}
                told(replace(event, step=replace(step, latents={STREAM: tokens}, clean=clean)))
        return unpack(tokens, one.shape)

    def start(
        self, made: Plan, number: int, begin: Array | None, sources: NoiseSources, watch: Watch = unwatched
    ) -> TokenStream:
        """The initial tokens of pass `number`: noise, and the conditions encoded at the pass's size.

        `begin` (1,C,f,h,w) are latents to start from, if there are any.
        """
        tokens, encoded = encode.initial_tokens(made, number, begin, sources), []
        if made.checked.items:
            told, event = Audience.of(watch), Event("image encoder", None, 0, number + 1, len(made.passes))
            told(event)
            with self.engines.engine("vae_encoder") as encoder:
                done = Counted(told.report, event.progress.stage, encode.tiles(made, number), "tile")
                encoded = encode.encoded_conditions(made, number, sources, encoder, done)
        return encode.conditioned(made, number, tokens, encoded, sources)

    def pixels(
        self, made: Plan, latents: Array, generator: Generator, watch: Watch = unwatched
    ) -> Iterator[Array]:
        """Decoded pixels (3,n,H,W) in −1..1 of latents (1,C,f,h,w), a run of frames at a time."""
        told, event = Audience.of(watch), Event("image decoder")
        told(event)
        with self.engines.engine("vae_decoder") as decoder:
            done = Counted(told.report, event.stage, decode.tiles(made, latents), "tile")
            yield from decode.pixels(made, latents, generator, decoder, done)

    def unproved(self, made: Plan) -> list[str]:
        """A warning if components that run were never verified against torch, none if all
        were."""
        names = verification.unproved(self.bundle, self.engines.backend, made.precisions, self._report)
        if not names:
            return []
        missing = ", ".join(f"{name} {made.precisions[name]}" for name in names)
        where = f"{missing} on {self.engines.backend}"
        return [f"note: no passing parity report for {where}; ltx-parity check makes one"]


def _own_pool(bundle: Bundle, options: PoolOptions) -> EnginePool:
    """A pool whose backend runs on this machine."""
    pool = EnginePool(bundle, **options)
    available(pool.backend, pool.device)
    return pool
