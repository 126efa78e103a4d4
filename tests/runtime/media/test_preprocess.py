"""How images are made to fit: each step against torch, and their order."""

import tracemalloc

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from ltxrt.engines.errors import InputError
from ltxrt.runtime.media import preprocess
from ltxrt.runtime.media.preprocess import (
    PREPARATIONS,
    Fit,
    blur,
    centre_crop,
    h264_round_trip,
    in_bands,
    prepare,
)

RNG = np.random.default_rng(0)


def smooth(height=64, width=96):
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 2 % 256, y * 3 % 256, (x + y) % 256], axis=-1).astype(np.uint8)


@pytest.mark.parametrize(
    ("shape", "target", "wanted"),
    [((100, 400), (64, 96), (100, 150)), ((400, 100), (64, 96), (66, 100)), ((64, 96), (64, 96), (64, 96))],
)
def test_the_crop_is_the_largest_centred_part(shape, target, wanted):
    picture = RNG.integers(0, 256, (*shape, 3), np.uint8)
    part = centre_crop(picture, *target)
    assert part.shape[:2] == wanted
    top, left = ((a - b) // 2 for a, b in zip(shape, wanted))
    np.testing.assert_array_equal(part, picture[top : top + wanted[0], left : left + wanted[1]])


def in_torch(picture):
    """The blur as the official code asks torchvision for it, and its cut to 8 bits."""
    line = torch.exp(-0.5 * torch.linspace(-1, 1, 3) ** 2)
    kernel = torch.outer(line / line.sum(), line / line.sum()).expand(3, 1, 3, 3)
    pixels = torch.from_numpy(picture).permute(2, 0, 1).float().div(255)[None]
    blurred = functional.conv2d(functional.pad(pixels, (1,) * 4, mode="reflect"), kernel, groups=3)
    return (blurred[0].permute(1, 2, 0) * 255).byte().numpy()


def test_the_blur_is_torch_s_gaussian():
    picture = RNG.integers(0, 256, (50, 61, 3), np.uint8)
    np.testing.assert_array_equal(blur(picture), in_torch(picture))
    flat = np.arange(256, dtype=np.uint8).reshape(16, 16).repeat(6, axis=0).repeat(6, axis=1)
    flat = np.stack([flat, flat.T, flat[::-1]], axis=-1)  # the last bit shows how numbers were summed and cut
    np.testing.assert_array_equal(blur(flat), in_torch(flat))
    assert blur(picture[:1]).shape == (1, 61, 3)


def test_the_codec_is_deterministic_near_and_even():
    picture = smooth(65, 97)
    coded = h264_round_trip(picture)
    assert coded.shape == (64, 96, 3)
    np.testing.assert_array_equal(coded, h264_round_trip(picture))
    flat = np.full((64, 96, 3), 120, np.uint8)
    assert np.abs(h264_round_trip(flat).astype(int) - 120).max() <= 4
    ramp = np.broadcast_to(np.linspace(0, 255, 96).astype(np.uint8)[None, :, None], (64, 96, 3))
    error = np.mean((h264_round_trip(ramp).astype(float) - ramp) ** 2)
    assert error > 0 and 10 * np.log10(255**2 / error) > 30
    rough = np.mean((h264_round_trip(ramp, crf=51).astype(float) - ramp) ** 2)
    assert rough > error


def test_official_scaling_is_torch_s_bilinear():
    picture = smooth()
    steps = preprocess.Preparation(crop=False, blur=False, codec=False, scale="bilinear")
    pixels = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 127.5 - 1
    wanted = functional.interpolate(pixels, (32, 160), mode="bilinear", align_corners=False)[0].numpy()
    np.testing.assert_allclose(prepare(picture, Fit((32, 160), (32, 160)), steps), wanted, atol=1e-5)


def test_steps_are_switched_by_name():
    assert preprocess.preparation_named("official") == PREPARATIONS["official"]
    assert preprocess.preparation_named("crop,blur,codec") == PREPARATIONS["official"]
    assert preprocess.preparation_named("blur") == preprocess.Preparation(False, True, False, "bilinear")
    assert preprocess.preparation_named("none") == preprocess.Preparation(False, False, False, "bilinear")
    for text in ("sepia", "crop,", ""):
        with pytest.raises(
            InputError, match="must be one of official, plain, none, or steps of crop,blur,codec"
        ):
            preprocess.preparation_named(text)


def test_the_official_order(monkeypatch):
    called = []
    for name in ("centre_crop", "blur", "h264_round_trip"):
        plain = getattr(preprocess, name)
        monkeypatch.setattr(preprocess, name, lambda *a, n=name, f=plain: called.append(n) or f(*a))
    assert prepare(smooth(), Fit((32, 32), (32, 32)), PREPARATIONS["official"]).shape == (3, 32, 32)
    assert called == ["centre_crop", "blur", "h264_round_trip"]
    called.clear()
    prepare(smooth(), Fit((32, 32), (32, 32)), PREPARATIONS["plain"])
    assert called == ["centre_crop"]


def test_a_picture_is_cropped_to_the_shape_asked_for_and_stretched_to_the_pass_s(monkeypatch):
    """704×1216 has its first pass at 448×800, of another shape: both passes see the same part."""
    monkeypatch.setattr(preprocess, "h264_round_trip", lambda picture: picture)
    picture = smooth(150, 170)
    part = blur(centre_crop(picture, 64, 96))
    for size in ((32, 96), (64, 192)):
        pixels = torch.from_numpy(part).permute(2, 0, 1)[None].float() / 127.5 - 1
        wanted = functional.interpolate(pixels, size, mode="bilinear", align_corners=False)[0].numpy()
        found = prepare(picture, Fit((64, 96), size), PREPARATIONS["official"])
        np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_a_video_to_start_from_is_scaled_before_blur_and_codec():
    picture = smooth(112, 208)
    fit = Fit((64, 96), (64, 96), scaled_first=True)
    scaled = Image.fromarray(centre_crop(picture, 64, 96)).resize((96, 64))  # bicubic, Pillow's own choice
    wanted = h264_round_trip(blur(np.asarray(scaled))).transpose(2, 0, 1).astype(np.float32) / 127.5 - 1
    np.testing.assert_array_equal(prepare(picture, fit, PREPARATIONS["official"]), wanted)
    plain = prepare(picture, fit, PREPARATIONS["plain"])
    np.testing.assert_array_equal(plain, prepare(picture, Fit((64, 96), (64, 96)), PREPARATIONS["plain"]))


@pytest.mark.parametrize("height", [1, 2, 15, 16, 17, 33, 49])
def test_bands_change_nothing(height):
    picture = np.random.default_rng(0).integers(0, 256, (height, 20, 3), np.uint8)
    np.testing.assert_array_equal(in_bands(blur, picture, rows=16), blur(picture))


def test_the_memory_of_a_blur_does_not_grow_with_the_picture():
    picture = np.zeros((4096, 512, 3), np.uint8)
    tracemalloc.start()
    try:
        in_bands(blur, picture)
        whole = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert whole < 4 * picture.nbytes, "the result and some bands"
