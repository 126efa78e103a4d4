"""What is done to latents before decoding and to pixels after it."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from ltxrt.engines.errors import NumericsError
from ltxrt.engines.families.ltxv.facts import NoiseMaps, VaeFacts
from ltxrt.export.ltxv import versions
from ltxrt.runtime.ltxv import decode, upscale
from ltxrt.runtime.ltxv.settings import complete
from ltxrt.runtime.noise.cpu import TorchCpuGenerator
from ltxrt.runtime.noise.cuda import TorchCudaGenerator
from ltxrt.runtime.request.request import Request
from ltxrt.runtime.sampling.latents import normalise, pack, unnormalise

C = 4
MEAN, STD = (0.5, -1.0, 2.0, 0.0), (2.0, 0.5, 1.0, 3.0)
VAE = VaeFacts(C, 32, 8, MEAN, STD, True, (NoiseMaps(2, 3), NoiseMaps(8, 2)))
PLAIN = dataclasses.replace(VAE, timestep_conditioning=False, noise_maps=())
LATENTS = np.random.default_rng(0).standard_normal((1, C, 2, 3, 4), dtype=np.float32)


def settings(**values):
    size = {"height": 96, "width": 128, "num_frames": 9}
    return complete(Request("fog", **{**size, **values}), versions.version("0.9.1").presets, VAE)


def drawn():
    return TorchCpuGenerator(1).randn(LATENTS.shape)


def test_noise_is_mixed_before_latents_are_unnormalised_as_in_the_official_pipeline():
    torch.manual_seed(1)
    ours = decode.prepare(settings(decode_noise_scale=0.1), VAE, LATENTS, TorchCpuGenerator(1))
    noise = torch.randn_like(unpatchified(LATENTS.shape)).numpy()
    np.testing.assert_allclose(ours, 0.9 * LATENTS + 0.1 * noise, rtol=1e-5, atol=1e-6)


def unpatchified(shape):
    """A tensor whose memory is that of the official latents: what `unpatchify` makes of tokens."""
    batch, channels, *grid = shape
    return torch.zeros(batch, math.prod(grid), channels).swapaxes(1, 2).unflatten(2, grid)


@pytest.mark.parametrize("shape", [LATENTS.shape, (1, C, 1, 1, 5), (1, 48, 1, 1, 1), (1, C, 1, 1, 1)])
def test_decode_noise_and_what_follows_it_are_the_official_ones(shape):
    torch.manual_seed(1)
    noise = torch.randn_like(unpatchified(shape))
    maps = torch.randn(2 * shape[3], 2 * shape[4])
    generator, latents = TorchCpuGenerator(1), np.zeros(shape, np.float32)
    ours = decode.prepare(settings(decode_noise_scale=1.0), VAE, latents, generator)
    np.testing.assert_allclose(ours, noise, rtol=0, atol=1e-6 if noise.is_contiguous() else 0)
    np.testing.assert_allclose(
        decode.extra_inputs(settings(), VAE, latents, generator)["noise_2x"][0], maps, rtol=0, atol=3e-6
    )


def test_the_cuda_generator_draws_decode_noise_in_the_order_of_memory_too():
    """As torch's kernel walks a dense tensor (read in its source, not run)."""
    latents, generator = np.zeros_like(LATENTS), TorchCudaGenerator(1, "T4")
    ours = decode.prepare(settings(decode_noise_scale=1.0), VAE, latents, generator)
    tokens = TorchCudaGenerator(1, "T4").randn((1, 2 * 3 * 4, C))
    np.testing.assert_array_equal(pack(ours), tokens)


def test_diffusers_mixes_after():
    chosen = settings(decode_noise_scale=0.1, reference="diffusers")
    ours = unnormalise(decode.prepare(chosen, VAE, LATENTS, TorchCpuGenerator(1)), MEAN, STD)
    np.testing.assert_allclose(
        ours, 0.9 * unnormalise(LATENTS, MEAN, STD) + 0.1 * drawn(), rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(normalise(unnormalise(LATENTS, MEAN, STD), MEAN, STD), LATENTS, atol=1e-6)


def test_tone_mapping_comes_last_and_without_a_timestep_there_is_no_noise():
    chosen = settings(decode_noise_scale=0.1, tone_map=0.6)
    mixed = decode.prepare(settings(decode_noise_scale=0.1), VAE, LATENTS, TorchCpuGenerator(1))
    ours = decode.prepare(chosen, VAE, LATENTS, TorchCpuGenerator(1))
    np.testing.assert_array_equal(ours, upscale.tone_map(mixed, 0.6))
    np.testing.assert_array_equal(
        decode.prepare(settings(decode_noise_scale=0.1), PLAIN, LATENTS, None), LATENTS
    )


def test_a_tile_has_its_part_of_the_noise_maps():
    inputs = decode.extra_inputs(settings(), VAE, LATENTS, TorchCpuGenerator(0))
    assert {n: a.shape for n, a in inputs.items()} == {
        "timestep": (1,), "noise_2x": (3, 6, 8), "noise_8x": (2, 24, 32),
    }  # fmt: skip
    part = decode.tile_inputs(inputs, VAE, slice(1, 3), slice(0, 2))
    np.testing.assert_array_equal(part["noise_2x"], inputs["noise_2x"][:, 2:6, 0:4])
    np.testing.assert_array_equal(part["noise_8x"], inputs["noise_8x"][:, 8:24, 0:16])
    assert part["timestep"] is inputs["timestep"]
    assert decode.extra_inputs(settings(), PLAIN, LATENTS, None) == {}


def picture(frames, height=96, width=128):
    ramp = np.linspace(-1, 1, width, dtype=np.float32)
    return np.broadcast_to(ramp, (3, frames, height, width)).copy()


def test_frames_come_one_by_one_in_the_size_asked_for():
    found = list(decode.frames(settings(), [picture(3), picture(2, 192, 256)]))
    assert [f.shape for f in found] == [(1, 96, 128, 3)] * 5
    assert found[0].dtype == np.uint8 and (found[0][0, 0, 0, 0], found[0][0, 0, -1, 0]) == (0, 255)


def test_pixels_are_clipped_before_they_are_scaled():
    """A bright edge does not bleed: torch's clamp, then its interpolation."""
    pixels = np.random.default_rng(3).standard_normal((3, 2, 64, 96), dtype=np.float32) * 2
    wanted = functional.interpolate(
        (torch.from_numpy(pixels) / 2 + 0.5).clamp(0, 1).permute(1, 0, 2, 3), (96, 128), mode="bilinear"
    )
    wanted = (wanted * 255).permute(0, 2, 3, 1).numpy()
    found = np.concatenate(list(decode.frames(settings(), [pixels])))
    assert np.abs(found - wanted).max() < 0.51


@pytest.mark.parametrize(
    ("chunks", "message"),
    [
        ([np.full((3, 2, 96, 128), np.nan, np.float32)], "NaN of .* values, from frame 0 on"),
        ([picture(2), np.zeros((3, 1, 96, 128), np.float32)], "only the value 0 at decoding"),
        ([picture(1) + 3], "only the value 255 at decoding, after clipping"),
    ],
)
def test_broken_pictures_stop_the_run(chunks, message):
    with pytest.raises(NumericsError, match=message):
        list(decode.frames(settings(), chunks))
