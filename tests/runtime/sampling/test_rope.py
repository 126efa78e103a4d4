import math

import numpy as np
import pytest
import torch
from diffusers import LTXConditionPipeline
from diffusers.models.transformers.transformer_ltx import LTXVideoRotaryPosEmbed

from ltxrt.engines.errors import InputError
from ltxrt.engines.families.ltxv.facts import VaeFacts
from ltxrt.runtime.sampling.latents import LatentShape
from ltxrt.runtime.sampling.rope import coordinates, frequencies, tables

VAE = VaeFacts(128, 32, 8, (0.0,) * 128, (1.0,) * 128, True, ())
MAX_POSITIONS = (20.0, 2048.0, 2048.0)
SHAPE = LatentShape(4, 22, 38)


def reference_tables(coords, width):
    embed = LTXVideoRotaryPosEmbed(width)
    cos, sin = embed(torch.zeros(1, 1, 1), video_coords=torch.from_numpy(coords)[None])
    return cos.numpy(), sin.numpy()


def reference_coordinates(shape, frame_rate):
    """The causal coordinates of diffusers' LTXConditionPipeline."""
    ids = LTXConditionPipeline._prepare_video_ids(1, shape.frames, shape.height, shape.width)
    coords = LTXConditionPipeline._scale_video_ids(ids, scale_factor=32, scale_factor_t=8).float()
    coords[:, 0] = coords[:, 0] * (1.0 / frame_rate)
    return coords[0].numpy()


def reference_frequencies(width):
    return (10000.0 ** torch.linspace(0.0, 1.0, width // 6) * math.pi / 2.0).numpy()


@pytest.mark.parametrize("frame_rate", [25, 30, 24, 23.976])
def test_causal_coordinates_are_the_references_bit_for_bit(frame_rate):
    ours = coordinates(SHAPE, frame_rate, True, VAE)
    assert ours.dtype == np.float32
    np.testing.assert_array_equal(ours, reference_coordinates(SHAPE, frame_rate))


def test_latent_frames_start_at_the_pixel_frames_they_cover():
    shape = LatentShape(4, 1, 2)
    causal, plain = (coordinates(shape, 1.0, flag, VAE) for flag in (True, False))
    assert causal[0].tolist() == [0, 0, 1, 1, 9, 9, 17, 17]
    assert plain[0].tolist() == [0, 0, 8, 8, 16, 16, 24, 24]
    assert causal[2].tolist() == [0, 32] * 4


@pytest.mark.parametrize("frame_rate", [0.0, -25.0, math.nan])
def test_a_frame_rate_that_is_not_positive_is_refused(frame_rate):
    with pytest.raises(InputError, match=r"frame_rate .*: must be greater than 0"):
        coordinates(SHAPE, frame_rate, True, VAE)


def test_golden_values():
    coords = np.array([[1 / 25], [32], [64]], np.float32)
    cos, sin = tables(coords, 2048, 10000.0, MAX_POSITIONS)
    assert cos.shape == sin.shape == (1, 1, 1024)
    np.testing.assert_allclose(cos[0, 0, :5], [1, 0.00628308, 0.04906765, 0.09801713, -0.0366693], atol=2e-7)
    np.testing.assert_allclose(
        sin[0, 0, :5], [0, -0.99998027, -0.99879545, -0.99518472, -0.99932748], atol=2e-7
    )
    assert frequencies(2048, 10000.0)[[0, 1, -1]] == pytest.approx([1.5707964, 1.6139296, 15707.96], rel=1e-6)
    assert frequencies(4096, 10000.0)[1] == pytest.approx(1.5921853, rel=1e-7)


@pytest.mark.parametrize("width", [2048, 4096, 32, 8])
def test_columns_are_every_second_one_of_the_references_duplicated_tables(width):
    coords = coordinates(LatentShape(2, 2, 3), 25, True, VAE)
    theirs = reference_tables(coords, width)
    for ours, full in zip(tables(coords, width, 10000.0, MAX_POSITIONS), theirs):
        np.testing.assert_array_equal(full[..., 0::2], full[..., 1::2])
        assert ours.shape == (1, coords.shape[1], width // 2)
        np.testing.assert_allclose(ours, full[..., 0::2], rtol=0, atol=4e-3)


@pytest.mark.parametrize("width", [2048, 4096])
def test_frequencies_are_within_a_few_roundings_of_the_references(width):
    """torch's linspace and power depend on the CPU; a rounding of the exponent is 9 of the frequency."""
    ours, theirs = frequencies(width, 10000.0), reference_frequencies(width)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    assert np.mean(ours == theirs) > 0.8


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("width", [2048, 4096])
def test_tables_equal_the_references_where_the_frequencies_do(width, causal):
    coords = coordinates(SHAPE, 30, causal, VAE)
    same = np.repeat(frequencies(width, 10000.0) == reference_frequencies(width), 3)
    columns = np.concatenate([np.ones(width % 6 // 2, bool), same])
    for ours, theirs in zip(tables(coords, width, 10000.0, MAX_POSITIONS), reference_tables(coords, width)):
        difference = np.abs(ours - theirs[..., ::2])
        assert difference[..., columns].max() <= 2e-7  # sine and cosine of the very same fp32 angle
        assert difference.max() <= 4e-3


def test_sine_and_cosine_of_large_angles_are_reduced_exactly():
    angles = np.random.default_rng(0).uniform(-15708, 15708, 100_000).astype(np.float32)
    exact = angles.astype(np.float64)
    assert np.abs(np.cos(angles) - np.cos(exact)).max() < 2e-7
    assert np.abs(np.sin(angles) - np.sin(exact)).max() < 2e-7
