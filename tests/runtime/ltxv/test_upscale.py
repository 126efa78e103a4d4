"""Between two passes, against diffusers and torch."""

import numpy as np
import pytest
import torch
from diffusers import LTXLatentUpsamplePipeline

from ltxrt.engines.errors import InputError
from ltxrt.engines.families.ltxv.facts import VaeFacts
from ltxrt.runtime.ltxv import upscale

VAE = VaeFacts(16, 32, 8, (0.0,) * 16, (1.0,) * 16, True, ())
FACTOR = 0.6666666


@pytest.mark.parametrize(
    ("size", "first"),
    [
        ((704, 1216), (448, 800)),
        ((768, 1280), (480, 832)),
        ((512, 768), (320, 480)),
        ((480, 832), (288, 544)),
        ((1088, 1920), (704, 1248)),
    ],
)
def test_first_pass_sizes_are_the_official_ones(size, first):
    assert upscale.first_pass_size(*size, FACTOR, VAE) == first


def test_a_first_pass_of_nothing_is_refused():
    with pytest.raises(InputError, match=r"0\.5 of 32x96 leaves 0x32"):
        upscale.first_pass_size(32, 96, 0.5, VAE)


def latents(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32) * 2 + 1


@pytest.mark.parametrize("factor", [0.3, 1.0])
def test_adain_is_diffusers(factor):
    ours, reference = latents(0, 2, 5, 3, 8, 6), latents(1, 2, 5, 3, 4, 3)
    pipeline = object.__new__(LTXLatentUpsamplePipeline)
    wanted = pipeline.adain_filter_latent(torch.from_numpy(ours.copy()), torch.from_numpy(reference), factor)
    np.testing.assert_allclose(upscale.adain(ours, reference, factor), wanted.numpy(), atol=2e-6)


@pytest.mark.parametrize("ratio", [0.2, 0.6, 1.0])
def test_tone_mapping_is_diffusers(ratio):
    ours = latents(2, 1, 4, 2, 3, 3)
    pipeline = object.__new__(LTXLatentUpsamplePipeline)
    wanted = pipeline.tone_map_latents(torch.from_numpy(ours), ratio).numpy()
    np.testing.assert_allclose(upscale.tone_map(ours, ratio), wanted, atol=1e-6)
    assert np.abs(wanted).max() < np.abs(ours).max()
    np.testing.assert_array_equal(upscale.tone_map(ours, 0.0), ours)


def test_renoising_goes_from_latents_to_noise():
    one, noise = latents(0, 1, 2), latents(1, 1, 2)
    np.testing.assert_array_equal(upscale.renoise(one, noise, 0.0), one)
    np.testing.assert_array_equal(upscale.renoise(one, noise, 1.0), noise)
    np.testing.assert_allclose(upscale.renoise(one, noise, 0.25), 0.25 * noise + 0.75 * one, rtol=1e-6)
