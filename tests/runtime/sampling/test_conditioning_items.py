"""Conditions among the tokens, against diffusers' own arrays for the same latents and noise."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import LTXConditionPipeline

from ltxrt.engines.errors import InputError
from ltxrt.engines.families.ltxv.facts import VaeFacts
from ltxrt.runtime.noise.cpu import TorchCpuGenerator
from ltxrt.runtime.sampling.conditioning_items import Item, check, prepare, strip

C, F, H, W = 4, 5, 2, 3  # 33 frames of 64×96
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


def given(case):
    rng = np.random.default_rng(4)
    items = [Item(*one, f"condition {i}") for i, one in enumerate(CASES[case])]
    sizes = [(item.frames - 1) // 8 + 1 for item in items]
    return [(i, rng.standard_normal((1, C, n, H, W), dtype=np.float32)) for i, n in zip(items, sizes)]


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
    encoded = given(case)
    tokens, coords, mask, extra = theirs(encoded, 24.0, monkeypatch)
    generator = TorchCpuGenerator(3)
    grid = generator.randn((1, C, F, H, W))
    ours = prepare(grid, encoded, generator.randn, 24.0, True, VAE)
    assert ours.extra == extra
    np.testing.assert_allclose(ours.tokens, tokens, atol=2e-6)
    np.testing.assert_allclose(ours.coords, coords, rtol=1e-6)
    np.testing.assert_array_equal(ours.mask, mask.astype(np.float32))
    assert strip(ours.tokens, extra).shape == (1, F * H * W, C)


def test_the_noise_that_is_given_stays_as_it_was():
    grid = np.ones((1, C, F, H, W), np.float32)
    prepare(grid, given("several"), TorchCpuGenerator(0).randn, 24.0, True, VAE)
    assert (grid == 1).all()


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
        check([Item(*item, "clip")], 33, VAE)


def test_two_beginnings_are_refused():
    with pytest.raises(InputError, match="a and b both begin at frame 0"):
        check([Item(0, 1, 1.0, "a"), Item(8, 1, 1.0, "c"), Item(0, 9, 1.0, "b")], 33, VAE)
    check([Item(0, 1, 1.0, "a"), Item(8, 1, 1.0, "c")], 33, VAE)


def test_latents_of_another_size_are_refused():
    wrong = [(Item(0, 1, 1.0, "a"), np.zeros((1, C, 1, H, W + 1), np.float32))]
    with pytest.raises(InputError, match="do not fit latents"):
        prepare(np.zeros((1, C, F, H, W), np.float32), wrong, TorchCpuGenerator(0).randn, 24.0, True, VAE)
