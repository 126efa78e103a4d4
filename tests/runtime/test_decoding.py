"""What is done to latents before decoding and to pixels after it."""

import dataclasses

import numpy as np
import pytest

from ltxrt.engines.errors import NumericsError
from ltxrt.engines.facts import NoiseMaps, VaeFacts
from ltxrt.export import versions
from ltxrt.runtime import decoding, upscale
from ltxrt.runtime.latents import normalise, unnormalise
from ltxrt.runtime.noise import TorchCpuGenerator
from ltxrt.runtime.request import Request, complete

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
    ours = decoding.prepare(settings(decode_noise_scale=0.1), VAE, LATENTS, TorchCpuGenerator(1).randn)
    np.testing.assert_allclose(ours, 0.9 * LATENTS + 0.1 * drawn(), rtol=1e-5, atol=1e-6)


def test_diffusers_mixes_after():
    chosen = settings(decode_noise_scale=0.1, reference="diffusers")
    ours = unnormalise(decoding.prepare(chosen, VAE, LATENTS, TorchCpuGenerator(1).randn), MEAN, STD)
    np.testing.assert_allclose(
        ours, 0.9 * unnormalise(LATENTS, MEAN, STD) + 0.1 * drawn(), rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(normalise(unnormalise(LATENTS, MEAN, STD), MEAN, STD), LATENTS, atol=1e-6)


def test_tone_mapping_comes_last_and_without_a_timestep_there_is_no_noise():
    chosen = settings(decode_noise_scale=0.1, tone_map=0.6)
    mixed = decoding.prepare(settings(decode_noise_scale=0.1), VAE, LATENTS, TorchCpuGenerator(1).randn)
    ours = decoding.prepare(chosen, VAE, LATENTS, TorchCpuGenerator(1).randn)
    np.testing.assert_array_equal(ours, upscale.tone_map(mixed, 0.6))
    np.testing.assert_array_equal(
        decoding.prepare(settings(decode_noise_scale=0.1), PLAIN, LATENTS, None), LATENTS
    )


def test_a_tile_has_its_part_of_the_noise_maps():
    inputs = decoding.extra_inputs(settings(), VAE, LATENTS, TorchCpuGenerator(0).randn)
    assert {n: a.shape for n, a in inputs.items()} == {
        "timestep": (1,), "noise_2x": (3, 6, 8), "noise_8x": (2, 24, 32),
    }  # fmt: skip
    part = decoding.of_tile(inputs, VAE, slice(1, 3), slice(0, 2))
    np.testing.assert_array_equal(part["noise_2x"], inputs["noise_2x"][:, 2:6, 0:4])
    np.testing.assert_array_equal(part["noise_8x"], inputs["noise_8x"][:, 8:24, 0:16])
    assert part["timestep"] is inputs["timestep"]
    assert decoding.extra_inputs(settings(), PLAIN, LATENTS, None) == {}


def picture(frames, height=96, width=128):
    ramp = np.linspace(-1, 1, width, dtype=np.float32)
    return np.broadcast_to(ramp, (3, frames, height, width)).copy()


def test_frames_come_one_by_one_in_the_size_asked_for():
    found = list(decoding.frames(settings(), [picture(3), picture(2, 192, 256)]))
    assert [f.shape for f in found] == [(1, 96, 128, 3)] * 5
    assert found[0].dtype == np.uint8 and (found[0][0, 0, 0, 0], found[0][0, 0, -1, 0]) == (0, 255)


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
        list(decoding.frames(settings(), chunks))
