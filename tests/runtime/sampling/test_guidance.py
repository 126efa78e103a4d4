import numpy as np
import pytest
import torch
from diffusers.pipelines.ltx.pipeline_ltx import rescale_noise_cfg

from ltxrt.runtime.sampling.guidance import cfg_star, combine, diffusers_rescale, rescale, stg_delta


def velocities(count, batch=2):
    rng = np.random.default_rng(count)
    scales = np.arange(1, batch + 1, dtype=np.float32)[:, None, None]
    return [rng.standard_normal((batch, 30, 8), dtype=np.float32) * scales + 0.1 for _ in range(count)]


def reference(negative, positive, perturbed, g, s, r, star):
    """The official pipeline's guidance, in torch."""
    negative, positive, perturbed = map(torch.from_numpy, (negative, positive, perturbed))
    batch = positive.shape[0]
    if star:
        flat_positive, flat_negative = positive.reshape(batch, -1), negative.reshape(batch, -1)
        dot = (flat_positive * flat_negative).sum(1, keepdim=True)
        alpha = dot / ((flat_negative**2).sum(1, keepdim=True) + 1e-8)
        negative = alpha.view(batch, 1, 1) * negative
    out = negative + g * (positive - negative)
    out = out + s * (positive - perturbed)
    if r != 1:
        ratio = positive.reshape(batch, -1).std(1, keepdim=True) / out.reshape(batch, -1).std(1, keepdim=True)
        out = out * (r * ratio + (1 - r)).view(batch, 1, 1)
    return out.numpy()


@pytest.mark.parametrize(("g", "s", "r"), [(3.0, 1.0, 0.7), (8.0, 4.0, 0.5), (6.0, 4.0, 1.0)])
@pytest.mark.parametrize("star", [True, False])
def test_all_guidance_together_matches_the_official_formulas(g, s, r, star):
    negative, positive, perturbed = velocities(3)
    ours = combine(cfg_star(negative, positive) if star else negative, positive, g)
    ours = ours + stg_delta(positive, perturbed, s)
    ours = ours if r == 1 else rescale(ours, positive, r)
    assert ours.dtype == np.float32
    expected = reference(negative, positive, perturbed, g, s, r, star)
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=2e-5)


def test_combine_follows_the_positive_at_1_and_the_negative_at_0():
    negative, positive = velocities(2)
    np.testing.assert_allclose(combine(negative, positive, 1.0), positive, atol=1e-6)
    np.testing.assert_array_equal(combine(negative, positive, 0.0), negative)


def test_cfg_star_is_the_projection_of_each_sample():
    negative, positive = velocities(2)
    rest = positive - cfg_star(negative, positive)
    np.testing.assert_allclose((rest * negative).sum((1, 2)), 0, atol=2e-3)
    np.testing.assert_array_equal(cfg_star(np.zeros_like(positive), positive), 0)


def test_samples_do_not_affect_each_other():
    negative, positive = velocities(2)
    both = rescale(cfg_star(negative, positive), positive, 0.7)
    for i in range(2):
        one = slice(i, i + 1)
        np.testing.assert_array_equal(
            rescale(cfg_star(negative[one], positive[one]), positive[one], 0.7), both[one]
        )


def test_rescale_agrees_with_the_published_formula():
    guided, positive = velocities(2)
    expected = rescale_noise_cfg(torch.from_numpy(guided), torch.from_numpy(positive), guidance_rescale=0.7)
    np.testing.assert_allclose(rescale(guided, positive, 0.7), expected.numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(rescale(guided, positive, 0.0), guided)


@pytest.mark.parametrize("phi", [0.0, 0.3, 1.0])
def test_diffusers_rescale_is_diffusers(phi):
    guided, positive = velocities(2)
    expected = rescale_noise_cfg(torch.from_numpy(guided), torch.from_numpy(positive), guidance_rescale=phi)
    ours = diffusers_rescale(guided, positive, phi)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, expected.numpy(), rtol=1e-5, atol=1e-6)


def test_diffusers_rescale_off_leaves_even_a_constant_velocity_alone():
    constant = np.ones((1, 30, 8), np.float32)
    np.testing.assert_array_equal(diffusers_rescale(constant, constant, 0.0), constant)
