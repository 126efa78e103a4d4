import numpy as np
import pytest
import torch
from diffusers import LTXPipeline

from ltxrt.engines.errors import InputError
from ltxrt.engines.families.ltxv.facts import VaeFacts
from ltxrt.runtime.sampling.latents import (
    LatentShape,
    VideoShape,
    normalise,
    pack,
    unnormalise,
    unpack,
)

VAE = VaeFacts(128, 32, 8, (0.0,) * 128, (1.0,) * 128, True, ())
OTHER_VAE = VaeFacts(4, 16, 4, (0.0,) * 4, (1.0,) * 4, True, ())


@pytest.mark.parametrize(
    ("video", "latent", "tokens"),
    [
        ((97, 512, 768), (13, 16, 24), 4992),
        ((121, 480, 704), (16, 15, 22), 5280),
        ((121, 704, 1216), (16, 22, 38), 13376),
        ((257, 704, 1216), (33, 22, 38), 27588),
        ((1, 32, 32), (1, 1, 1), 1),
    ],
)
def test_sizes_of_the_official_table(video, latent, tokens):
    assert VideoShape(*video).latent(VAE) == LatentShape(*latent)
    assert LatentShape(*latent).tokens == tokens
    assert LatentShape(*latent).video(VAE) == VideoShape(*video)


def test_compressions_come_from_the_facts():
    assert VideoShape(9, 32, 48).latent(OTHER_VAE) == LatentShape(3, 2, 3)
    with pytest.raises(InputError, match=r"num_frames 8: must be 4k\+1; nearest are 5 and 9"):
        VideoShape(8, 32, 48).latent(OTHER_VAE)


@pytest.mark.parametrize(
    ("video", "message"),
    [
        ((20, 512, 768), r"num_frames 20: must be 8k\+1; nearest are 17 and 25$"),
        ((0, 512, 768), r"num_frames 0: must be 8k\+1; nearest is 1$"),
        ((-30, 512, 768), r"num_frames -30: must be 8k\+1; nearest is 1$"),
        ((25, 500, 768), r"height 500: must be a multiple of 32; nearest are 480 and 512$"),
        ((25, 512, 10), r"width 10: must be a multiple of 32; nearest is 32$"),
        ((25, 0, 768), r"height 0: must be a multiple of 32; nearest is 32$"),
    ],
)
def test_a_wrong_size_names_the_nearest_valid_ones(video, message):
    with pytest.raises(InputError, match=message):
        VideoShape(*video).check(VAE)


def test_pack_is_the_references_order_and_unpack_its_inverse():
    latents = np.random.default_rng(0).standard_normal((2, 5, 3, 2, 4), dtype=np.float32)
    tokens = pack(latents)
    np.testing.assert_array_equal(tokens, LTXPipeline._pack_latents(torch.from_numpy(latents)).numpy())
    assert tokens.flags.c_contiguous
    np.testing.assert_array_equal(unpack(tokens, LatentShape(3, 2, 4)), latents)


def test_unpack_refuses_a_shape_with_another_number_of_tokens():
    with pytest.raises(InputError, match=r"24 tokens do not fill .*frames=3.* holds 12"):
        unpack(np.zeros((1, 24, 5), np.float32), LatentShape(3, 2, 2))


def test_statistics_are_per_channel_and_match_the_reference():
    rng = np.random.default_rng(1)
    latents = rng.standard_normal((2, 5, 3, 2, 4), dtype=np.float32)
    mean, std = rng.standard_normal(5), rng.random(5) + 0.5
    as_torch = [torch.from_numpy(a).float() for a in (latents, mean, std)]
    normal = normalise(latents, tuple(mean), tuple(std))
    np.testing.assert_allclose(normal, LTXPipeline._normalize_latents(*as_torch).numpy(), rtol=1e-6)
    raw = unnormalise(latents, tuple(mean), tuple(std))
    np.testing.assert_allclose(raw, LTXPipeline._denormalize_latents(*as_torch).numpy(), rtol=1e-6)
    np.testing.assert_allclose(unnormalise(normal, tuple(mean), tuple(std)), latents, atol=1e-6)
    assert normal.dtype == raw.dtype == np.float32
