"""Which tokens are given and when each is denoised, against diffusers' own arrays and torch."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import LTXConditionPipeline

from ltxrt.engines.errors import InputError
from ltxrt.engines.families.ltxv.facts import VaeFacts
from ltxrt.runtime.noise.cpu import TorchCpuGenerator
from ltxrt.runtime.sampling.conditioning import (
    Item,
    Strengths,
    add_image_noise,
    check,
    denoised,
    lerp,
    own_frames,
    prepare,
)
from ltxrt.runtime.sampling.latents import LatentShape, pack
from ltxrt.runtime.sampling.rope import coordinates

RNG = np.random.default_rng(0)
MASK = np.array([[1, 0, 0.7, 0, 1, 0.3, 0.9999999]], np.float32)


def normal(*shape):
    return RNG.standard_normal(shape, dtype=np.float32)


@pytest.mark.parametrize("strength", [0.0, 0.3, 0.5, 0.9, 1.0])
def test_lerp_is_torchs(strength):
    start, end = normal(1, 6, 4), normal(1, 6, 4)
    expected = torch.lerp(torch.from_numpy(start), torch.from_numpy(end), strength).numpy()
    np.testing.assert_allclose(lerp(start, end, strength), expected, atol=1e-6)
    if strength in (0, 1):
        np.testing.assert_array_equal(lerp(start, end, strength), end if strength else start)


@pytest.mark.parametrize("sigma", [1.0, 0.5, 0.2, 0.01])
def test_distinct_timesteps_give_every_token_the_smaller_of_sigma_and_its_own(sigma):
    strengths = Strengths.of(MASK)
    timesteps, index = strengths.timesteps(sigma), strengths.index
    np.testing.assert_array_equal(strengths.tokens, MASK)
    assert timesteps.dtype == np.float32 and index.dtype == np.int64
    assert timesteps.shape == (1, 5) and index.shape == MASK.shape
    expected = torch.min(torch.tensor(sigma), 1 - torch.from_numpy(MASK)).numpy()
    np.testing.assert_array_equal(np.take_along_axis(timesteps, index, axis=1), expected)


def test_free_tokens_come_first():
    index = Strengths.of(MASK).index
    assert index[0, 1] == 0 and index[0, 0] == index.max()


def test_without_given_tokens_there_is_one_timestep():
    strengths = Strengths.of(np.zeros((1, 9), np.float32))
    np.testing.assert_array_equal(strengths.timesteps(0.725), np.array([[0.725]], np.float32))
    np.testing.assert_array_equal(strengths.index, np.zeros((1, 9)))


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


C, F, H, W = 4, 5, 2, 3  # 33 frames of 64×96
SHAPE = LatentShape(F, H, W)
VAE = VaeFacts(C, 32, 8, (0.0,) * C, (1.0,) * C, True, ())
CASES = {
    "image at 0": [(0, 1, 1.0)],
    "weak image at 0": [(0, 1, 0.5)],
    "keyframe": [(13, 1, 0.8)],
    "prefix": [(0, 17, 1.0)],
    "sequence of two latent frames": [(8, 9, 1.0)],
    "sequence": [(16, 17, 0.6)],
    "several": [(0, 9, 1.0), (32, 1, 0.7), (16, 9, 0.9)],
}


def encoded_items(case):
    rng = np.random.default_rng(4)
    items = [Item(*one, f"condition {i}") for i, one in enumerate(CASES[case])]
    sizes = [(item.frames - 1) // 8 + 1 for item in items]
    return [(i, rng.standard_normal((1, C, n, H, W), dtype=np.float32)) for i, n in zip(items, sizes)]


def placed(shape, frame):
    return coordinates(shape, 24.0, True, VAE, frame)


def theirs(encoded, frame_rate, monkeypatch):
    """diffusers' tokens, coordinates in seconds and pixels, strengths and number of extra tokens."""
    queue = [torch.from_numpy(latents) for _, latents in encoded]
    ones = torch.ones(C)
    vae = SimpleNamespace(encode=lambda data: queue.pop(0), latents_mean=0 * ones, latents_std=ones)
    pipeline = object.__new__(LTXConditionPipeline)
    monkeypatch.setattr("diffusers.pipelines.ltx.pipeline_ltx_condition.retrieve_latents", lambda x, **_: x)
    for name, value in {
        "vae": vae, "vae_temporal_compression_ratio": 8, "vae_spatial_compression_ratio": 32,
        "transformer_spatial_patch_size": 1, "transformer_temporal_patch_size": 1,
    }.items():  # fmt: skip
        object.__setattr__(pipeline, name, value)
    latents, mask, coords, extra = LTXConditionPipeline.prepare_latents(
        pipeline,
        [torch.zeros(1, 3, item.frames, 8, 8) for item, _ in encoded],
        [item.strength for item, _ in encoded],
        [item.start_frame for item, _ in encoded],
        num_channels_latents=C,
        height=32 * H,
        width=32 * W,
        num_frames=8 * F - 7,
        generator=torch.Generator().manual_seed(3),
        device="cpu",
        dtype=torch.float32,
    )
    coords = coords.float()
    coords[:, 0] *= 1.0 / frame_rate
    return latents.numpy(), coords[0].numpy(), mask.numpy(), extra


@pytest.mark.parametrize("case", CASES)
def test_tokens_coordinates_and_strengths_are_diffusers(case, monkeypatch):
    encoded = encoded_items(case)
    tokens, coords, mask, extra = theirs(encoded, 24.0, monkeypatch)
    generator = TorchCpuGenerator(3)
    ours = prepare(pack(generator.randn((1, C, F, H, W))), SHAPE, encoded, generator.randn, placed, 8)
    assert (ours.own.start, ours.own.stop) == (extra, None)
    assert extra == H * W * sum(own_frames(item, 8) for item, _ in encoded)
    np.testing.assert_allclose(ours.tokens, tokens, atol=2e-6)
    np.testing.assert_allclose(ours.coords, coords, rtol=1e-6)
    np.testing.assert_array_equal(ours.strengths.tokens, mask.astype(np.float32))
    assert ours.tokens[:, ours.own].shape == (1, F * H * W, C)


def test_the_noise_that_is_given_stays_as_it_was():
    tokens = np.ones((1, F * H * W, C), np.float32)
    prepare(tokens, SHAPE, encoded_items("several"), TorchCpuGenerator(0).randn, placed, 8)
    assert (tokens == 1).all()


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ((0, 1, 1.2), "clip: strength 1.2 must be between 0 and 1"),
        ((33, 1, 1.0), "clip: frame 33 must be between 0 and 32"),
        ((-1, 1, 1.0), "clip: frame -1 must be between"),
        ((24, 17, 1.0), "clip: 17 frames from frame 24 pass the video's 33; begin at frame 16 or earlier"),
        ((0, 12, 1.0), r"clip: a video of 12 frames must have 8k\+1; nearest are 9 and 17"),
        ((4, 9, 1.0), "clip: a video must begin on a multiple of 8; nearest to 4 are 0 and 8"),
    ],
)
def test_items_that_do_not_fit(item, message):
    with pytest.raises(InputError, match=message):
        check([Item(*item, "clip")], 33, 8)


def test_two_beginnings_are_refused():
    with pytest.raises(InputError, match="a and b both begin at frame 0"):
        check([Item(0, 1, 1.0, "a"), Item(8, 1, 1.0, "c"), Item(0, 9, 1.0, "b")], 33, 8)
    check([Item(0, 1, 1.0, "a"), Item(8, 1, 1.0, "c")], 33, 8)


@pytest.mark.parametrize("shape", [(1, C, 1, H, W + 1), (1, C + 1, 1, H, W), (1, C, F + 1, H, W)])
def test_latents_of_another_size_are_refused(shape):
    wrong = [(Item(0, 1, 1.0, "a"), np.zeros(shape, np.float32))]
    tokens = np.zeros((1, F * H * W, C), np.float32)
    with pytest.raises(InputError, match=r"image latents .* do not fit latents \(1, 4, 5, 2, 3\) at frame 0"):
        prepare(tokens, SHAPE, wrong, TorchCpuGenerator(0).randn, placed, 8)
