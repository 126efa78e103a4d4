"""The start of a pass: noise, a source video or the previous pass, and the conditions encoded at its size."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ltxrt.engines.backend import Engine
from ltxrt.engines.errors import InputError
from ltxrt.runtime.ltxv import conditions, upscale
from ltxrt.runtime.ltxv.noise import NoiseSources
from ltxrt.runtime.ltxv.plan import Plan
from ltxrt.runtime.sampling.conditioning import TokenStream, prepare
from ltxrt.runtime.sampling.latents import LatentShape, VideoShape, pack
from ltxrt.runtime.sampling.numerics import check_finite
from ltxrt.runtime.sampling.rope import coordinates
from ltxrt.runtime.vae import tiling

Array = NDArray[np.float32]
Done = Callable[[], object]


def start(plan: Plan, sources: NoiseSources, encoder: Engine, done: Done = lambda: None) -> Array:
    """Latents (1,C,f,h,w) of the source video, at the first pass's size; `done` is called after each tile."""
    pixels = conditions.read_whole(plan.settings, plan.passes[0].size, plan.model.vae, plan.checked.source)
    return _latents(plan, pixels, sources, encoder, done)


def encoded_conditions(
    plan: Plan, number: int, sources: NoiseSources, encoder: Engine, done: Done = lambda: None
) -> list[Array]:
    """Latents (1,C,n,h,w) of each condition, at the size of pass `number`; `done` is called after each
    tile."""
    size, vae = plan.passes[number].size, plan.model.vae
    return [
        _latents(plan, conditions.read(condition, plan.settings, size, vae, decoded), sources, encoder, done)
        for condition, decoded in zip(plan.settings.conditions, plan.checked.decoded, strict=True)
    ]


def tiles(plan: Plan, number: int | None = None) -> int:
    """How many tiles `encoded_conditions` encodes in pass `number`, or, for None, `start`."""
    vae = plan.model.vae
    return sum(tiling.count(shape, plan.encoder_tiles[shape], vae) for shape in plan.encoded(number))


def initial_tokens(plan: Plan, number: int, begin: Array | None, sources: NoiseSources) -> Array:
    """Noise (1,N,C), the request's own in the first pass, mixed into `begin` (1,C,f,h,w) if there is one."""
    one, reference = plan.passes[number], plan.settings.reference
    if number == 0 and plan.noise is not None:
        noise = pack(plan.noise)
    else:
        noise = reference.initial_noise(sources.start, plan.model.vae.latent_channels, one.shape)
    return noise if begin is None else upscale.renoise(pack(begin), noise, one.schedule[0])


def conditioned(
    plan: Plan, number: int, tokens: Array, encoded: list[Array], sources: NoiseSources
) -> TokenStream:
    """The tokens (1,N,C) of pass `number` with the conditions' latents among them."""
    vae = plan.model.vae

    def placed(shape: LatentShape, frame: int) -> Array:
        return coordinates(shape, plan.settings.preset.frame_rate, plan.causal_rope, vae, frame)

    items = list(zip(plan.checked.items, encoded, strict=True))
    shape, time = plan.passes[number].shape, vae.temporal_compression
    return prepare(tokens, shape, items, sources.first, placed, time)


def _latents(plan: Plan, pixels: Array, sources: NoiseSources, encoder: Engine, done: Done) -> Array:
    """Normalised latents (1,C,f,h,w) of pixels (3,F,H,W): the posterior's mean."""
    vae = plan.model.vae
    tile = plan.encoder_tiles.get(VideoShape(*pixels.shape[1:]).latent(vae))
    if tile is None:
        raise InputError(
            f"{pixels.shape[1]} frames were read where another number was counted before; do not change "
            "images and videos while they are used, and run again"
        )

    def call(part: Array) -> Array:
        encoded = encoder(pixels=part)["latents"]
        done()
        return encoded

    latents = tiling.encode(call, pixels[None], tile, vae)
    check_finite(latents, "vae_encoder", "encoding")
    if plan.settings.reference.posterior_drawn:
        sources.later.randn(latents.shape)  # for those that are drawn after it
    return latents
