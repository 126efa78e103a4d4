import numpy as np
import pytest
import torch
from diffusers import LTXConditionPipeline

from ltxrt.engines.errors import InputError
from ltxrt.runtime.sampling.conditioning import add_image_noise, denoised, distinct_timesteps, frame_zero
from ltxrt.runtime.sampling.latents import pack

RNG = np.random.default_rng(0)
MASK = np.array([[1, 0, 0.7, 0, 1, 0.3, 0.9999999]], np.float32)


def normal(*shape):
    return RNG.standard_normal(shape, dtype=np.float32)


@pytest.mark.parametrize("strength", [0.0, 0.3, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("frames", [1, 2])
def test_frame_zero_is_mixed_by_strength_and_the_rest_is_noise(strength, frames):
    noise, image = normal(1, 6, 4, 2, 3), normal(1, 6, frames, 2, 3)
    latents, mask = frame_zero(noise, image, strength)
    expected = torch.lerp(torch.from_numpy(noise[:, :, :frames]), torch.from_numpy(image), strength).numpy()
    np.testing.assert_allclose(latents[:, :, :frames], expected, atol=1e-6)
    np.testing.assert_array_equal(latents[:, :, frames:], noise[:, :, frames:])
    tokens = 2 * 3 * frames
    np.testing.assert_array_equal(
        mask, [[np.float32(strength)] * tokens + [0] * (pack(noise).shape[1] - tokens)]
    )
    assert latents.dtype == mask.dtype == np.float32


def test_full_strength_keeps_the_image_exactly_and_the_noise_untouched():
    noise, image = normal(1, 6, 4, 2, 3), normal(1, 6, 1, 2, 3)
    before = noise.copy()
    np.testing.assert_array_equal(frame_zero(noise, image, 1.0)[0][:, :, :1], image)
    np.testing.assert_array_equal(noise, before)


@pytest.mark.parametrize("strength", [-0.1, 1.5, float("nan")])
def test_a_strength_outside_0_to_1(strength):
    with pytest.raises(InputError, match=r"image strength .*: must be between 0 and 1"):
        frame_zero(normal(1, 6, 4, 2, 3), normal(1, 6, 1, 2, 3), strength)


@pytest.mark.parametrize("shape", [(1, 6, 1, 2, 4), (1, 6, 5, 2, 3), (1, 5, 1, 2, 3)])
def test_an_image_of_another_size(shape):
    with pytest.raises(InputError, match=r"image latents \(1, .*do not fit latents \(1, 6, 4, 2, 3\)"):
        frame_zero(normal(1, 6, 4, 2, 3), normal(*shape), 1.0)


@pytest.mark.parametrize("sigma", [1.0, 0.5, 0.2, 0.01])
def test_distinct_timesteps_give_every_token_the_smaller_of_sigma_and_its_own(sigma):
    timesteps, index = distinct_timesteps(sigma, MASK)
    assert timesteps.dtype == np.float32 and index.dtype == np.int64
    assert timesteps.shape == (1, 5) and index.shape == MASK.shape
    expected = torch.min(torch.tensor(sigma), 1 - torch.from_numpy(MASK)).numpy()
    np.testing.assert_array_equal(np.take_along_axis(timesteps, index, axis=1), expected)


def test_the_index_is_the_same_at_every_step_and_free_tokens_come_first():
    _, index = distinct_timesteps(1.0, MASK)
    for sigma in (0.9, 0.3, 0.1):
        np.testing.assert_array_equal(distinct_timesteps(sigma, MASK)[1], index)
    assert index[0, 1] == 0 and index[0, 0] == index.max()


def test_without_given_tokens_there_is_one_timestep():
    timesteps, index = distinct_timesteps(0.725, np.zeros((1, 9), np.float32))
    np.testing.assert_array_equal(timesteps, np.array([[0.725]], np.float32))
    np.testing.assert_array_equal(index, np.zeros((1, 9)))


@pytest.mark.parametrize("sigma", [1.0, 0.421875])
def test_image_noise_is_the_references(sigma):
    latents, initial = normal(1, 7, 4), normal(1, 7, 4)
    noise = torch.randn(1, 7, 4, generator=torch.Generator().manual_seed(3))
    expected = LTXConditionPipeline.add_noise_to_image_conditioning_latents(
        torch.tensor(sigma),
        torch.from_numpy(initial),
        torch.from_numpy(latents),
        0.15,
        torch.from_numpy(MASK),
        torch.Generator().manual_seed(3),
    )
    ours = add_image_noise(latents, initial, MASK, noise.numpy(), 0.15, sigma)
    np.testing.assert_allclose(ours, expected.numpy(), rtol=0, atol=1e-7)
    assert ours.dtype == np.float32
    given = MASK[0] > 0.99999
    np.testing.assert_array_equal(ours[:, ~given], latents[:, ~given])
    assert (ours[:, given] != latents[:, given]).all()


@pytest.mark.parametrize(
    ("sigma", "updated"),
    [
        (1.0, [0, 1, 0, 1, 0, 0, 0]),
        (0.7, [0, 1, 0, 1, 0, 1, 0]),
        (0.3, [0, 1, 1, 1, 0, 1, 0]),
        (0.01, [0, 1, 1, 1, 0, 1, 0]),
    ],
)
def test_a_token_joins_the_denoising_when_sigma_reaches_its_own(sigma, updated):
    before, after = np.zeros((1, 7, 4), np.float32), np.ones((1, 7, 4), np.float32)
    np.testing.assert_array_equal(denoised(before, after, MASK, sigma)[0, :, 0], updated)
