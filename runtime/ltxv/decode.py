"""Decodes latents to frames: processing of latents before the decoder and of pixels after it.

Reference: official `LTXVideoPipeline.__call__` (decode noise, then tone mapping, on normalised latents) and
diffusers, which mixes the noise into un-normalised ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from ltxrt.engines.backend import Engine
from ltxrt.engines.errors import NumericsError
from ltxrt.engines.families.ltxv.facts import VaeFacts
from ltxrt.runtime.ltxv.plan import Plan
from ltxrt.runtime.ltxv.settings import Settings
from ltxrt.runtime.ltxv.upscale import tone_map
from ltxrt.runtime.media.resize import resize
from ltxrt.runtime.media.write import to_uint8, to_uint16
from ltxrt.runtime.noise.cpu import Generator
from ltxrt.runtime.sampling.latents import LatentShape, normalise, unnormalise, unpack
from ltxrt.runtime.sampling.numerics import ADVICE, check_finite
from ltxrt.runtime.vae import tiling
from ltxrt.runtime.vae.tiling import Tile

Array = NDArray[np.float32]

Frames = NDArray[np.uint8] | NDArray[np.uint16]
CLIPPED = (-1.0, 1.0)  # before frames are scaled


def pixels(
    plan: Plan,
    latents: Array,
    generator: Generator,
    decoder: Engine,
    done: Callable[[], object] = lambda: None,
) -> Iterator[Array]:
    """Decoded pixels (3,n,H,W) in −1..1 of latents (1,C,f,h,w), a run of frames at a time; `done` is called
    after each tile."""
    settings, vae = plan.settings, plan.model.vae
    latents = prepare(settings, vae, latents, generator)
    inputs = extra_inputs(settings, vae, latents, generator)

    def call(tile: Array, rows: slice, columns: slice) -> Array:
        decoded = decoder(latents=tile, **tile_inputs(inputs, vae, rows, columns))["pixels"]
        done()
        return decoded

    return tiling.decode(call, latents, _tile(plan, latents), vae)


def tiles(plan: Plan, latents: Array) -> int:
    """How many tiles `pixels` decodes of latents (1,C,f,h,w)."""
    return tiling.count(LatentShape(*latents.shape[2:]), _tile(plan, latents), plan.model.vae)


def _tile(plan: Plan, latents: Array) -> Tile:
    return Tile.whole(LatentShape(*latents.shape[2:])) if plan.decoder_tile is None else plan.decoder_tile


def prepare(settings: Settings, vae: VaeFacts, latents: Array, generator: Generator) -> Array:
    """Latents (1,C,f,h,w) with decode noise, where the decoder has a timestep to remove it, tone mapped."""
    preset = settings.preset
    if vae.timestep_conditioning:
        latents = _mix_noise(settings, vae, latents, generator)
    return tone_map(latents, preset.tone_map) if preset.tone_map > 0 else latents


def extra_inputs(settings: Settings, vae: VaeFacts, latents: Array, generator: Generator) -> dict[str, Array]:
    """The decoder's inputs beside the latents, for their whole height and width."""
    inputs: dict[str, Array] = {}
    if vae.timestep_conditioning:
        inputs["timestep"] = np.full(1, settings.preset.decode_timestep, np.float32)
    for maps in vae.noise_maps:
        size = (maps.scale * latents.shape[3], maps.scale * latents.shape[4])
        inputs[f"noise_{maps.scale}x"] = np.stack([generator.randn(size) for _ in range(maps.count)])
    return inputs


def tile_inputs(inputs: dict[str, Array], vae: VaeFacts, rows: slice, columns: slice) -> dict[str, Array]:
    """`extra_inputs` for a tile at these latent rows and columns."""
    scales = {f"noise_{maps.scale}x": maps.scale for maps in vae.noise_maps}

    def cut(array: Array, scale: int) -> Array:
        part = array[:, rows.start * scale : rows.stop * scale, columns.start * scale : columns.stop * scale]
        return np.ascontiguousarray(part)

    return {name: cut(array, scales[name]) if name in scales else array for name, array in inputs.items()}


def frames(settings: Settings, pixels: Iterable[Array], deep: bool = False) -> Iterator[Frames]:
    """Decoded pixels, chunks (3,n,H,W) in −1..1, as single frames (1,H,W,3) of the size asked for.

    They are cropped from those generated, and the frames beyond the last are left out. They are uint8, or
    `deep` uint16 over its full range.

    Raises NumericsError for NaN, Inf and constant chunks, and at the end where all frames are one flat
    colour.
    """
    convert: Callable[[Array], Frames] = to_uint16 if deep else to_uint8
    low, high, left = 65535, 0, settings.video.num_frames
    for chunk in pixels:
        check_finite(chunk, "vae_decoder", "decoding", frame_axis=1)
        used = min(chunk.shape[1], left)
        left -= used
        for index in range(used):  # one at a time: scaling and rounding take several copies
            result = convert(_cropped(settings, chunk[:, index : index + 1]))
            low, high = min(low, int(result.min())), max(high, int(result.max()))
            yield result
        del chunk  # freed before the next one is decoded
    if low >= high:
        raise NumericsError(
            f"vae_decoder returned only the value {high} at decoding, after clipping to "
            f"0..{65535 if deep else 255}; {ADVICE}"
        )


def _cropped(settings: Settings, pixels: Array) -> Array:
    """Pixels (3,n,H,W) of the last pass at the size generated, and of these the part that is asked for."""
    video, padded = settings.video, settings.padded
    if pixels.shape[2:] != (padded.height, padded.width):
        pixels = resize(pixels.clip(*CLIPPED), padded.height, padded.width)
    top, _, left, _ = video.margins(padded)
    return pixels[:, :, top : top + video.height, left : left + video.width]


def _mix_noise(settings: Settings, vae: VaeFacts, latents: Array, generator: Generator) -> Array:
    """Adds noise for the decoder to remove: z(1 − s) + s·noise."""
    scale = np.float32(settings.preset.decode_noise_scale)
    drawn = _noise(
        settings, latents, generator
    )  # drawn for a scale of 0 too, because the noise maps are drawn after it
    if settings.reference.mix_normalised:
        return latents * (1 - scale) + scale * drawn
    mean, std = vae.latents_mean, vae.latents_std
    return normalise(unnormalise(latents, mean, std) * (1 - scale) + scale * drawn, mean, std)


def _noise(settings: Settings, latents: Array, generator: Generator) -> Array:
    """Noise (1,C,f,h,w), drawn as the official latents lie in memory, with C innermost."""
    _, channels, *grid = latents.shape
    shape = LatentShape(*grid)
    if not settings.reference.strided_decode_noise or min(channels, shape.tokens) == 1:
        return generator.randn(latents.shape)
    return unpack(generator.randn_strided((1, shape.tokens, channels)), shape)
