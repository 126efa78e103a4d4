import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from ltxrt.engines.errors import InputError
from ltxrt.runtime.media import readers
from ltxrt.runtime.media.preprocess import PREPARATIONS, Fit, prepare
from ltxrt.runtime.media.read import read_image
from ltxrt.runtime.media.write import save_strip


def load_image(path, height, width):
    """A file as plainly prepared pixels (3, height, width)."""
    fit = Fit((height, width), (height, width))
    return prepare(read_image(path, f"--image {path}"), fit, PREPARATIONS["plain"])


def picture(height=64, width=96):
    """RGB (H, W, 3): red grows to the right, green downwards."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 // (width - 1), y * 255 // (height - 1), 0 * x], axis=-1).astype(np.uint8)


def saved(tmp_path, image, name="image.png", **options):
    path = tmp_path / name
    image.save(path, **options)
    return path


def test_same_size_is_exact_and_in_range(tmp_path):
    pixels = load_image(saved(tmp_path, Image.fromarray(picture())), 64, 96)
    assert pixels.shape == (3, 64, 96)
    assert pixels.dtype == np.float32
    np.testing.assert_allclose((pixels + 1) * 127.5, picture().transpose(2, 0, 1), atol=1e-3)


def test_wide_image_is_cropped_in_the_centre(tmp_path):
    wide = np.zeros((32, 96, 3), np.uint8)
    wide[:, 32:64] = 255
    pixels = load_image(saved(tmp_path, Image.fromarray(wide)), 32, 32)
    np.testing.assert_array_equal(pixels, 1)


def test_scaling_down_is_antialiased(tmp_path):
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    pixels = load_image(saved(tmp_path, Image.fromarray(stripes)), 32, 32)
    assert np.abs(pixels[:, :, 4:-4]).max() < 0.1  # grey, not one of the stripes


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the transposition that undoes each orientation
    turned = Image.fromarray(picture())
    if orientation > 1:
        turned = turned.transpose(Image.Transpose(back[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = load_image(saved(tmp_path, turned, exif=exif), 64, 96)
    np.testing.assert_allclose((pixels + 1) * 127.5, picture().transpose(2, 0, 1), atol=1e-3)


def test_transparency_is_laid_over_black(tmp_path):
    rgba = np.full((32, 32, 4), 255, np.uint8)
    rgba[:, 16:, 3] = 0
    pixels = load_image(saved(tmp_path, Image.fromarray(rgba)), 32, 32)
    np.testing.assert_array_equal(pixels[:, :, :16], 1)
    np.testing.assert_array_equal(pixels[:, :, 16:], -1)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "CMYK", "1", "RGBA", "YCbCr"])
def test_other_modes_become_rgb(tmp_path, mode):
    suffix = "tif" if mode in ("CMYK", "YCbCr") else "png"
    grey = Image.fromarray(np.full((32, 32, 3), 255, np.uint8)).convert(mode)
    pixels = load_image(saved(tmp_path, grey, f"image.{suffix}"), 32, 32)
    np.testing.assert_allclose(pixels, 1, atol=0.02)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_scaled_not_clipped(tmp_path, suffix):
    ramp = np.tile(np.linspace(0, 65535, 32).astype(np.uint16), (32, 1))
    pixels = load_image(saved(tmp_path, Image.fromarray(ramp), f"image.{suffix}"), 32, 32)
    np.testing.assert_allclose(pixels[1, 5], np.linspace(-1, 1, 32), atol=0.01)


def test_integers_of_32_bits_are_scaled_as_16(tmp_path):
    ramp = np.tile(np.linspace(0, 65535, 32).astype(np.int32), (32, 1))
    pixels = load_image(saved(tmp_path, Image.fromarray(ramp), "image.tif"), 32, 32)
    np.testing.assert_allclose(pixels[1, 5], np.linspace(-1, 1, 32), atol=0.01)


def test_floats_are_scaled_from_0_to_1(tmp_path):
    ramp = np.tile(np.linspace(0, 1, 32).astype(np.float32), (32, 1))
    pixels = load_image(saved(tmp_path, Image.fromarray(ramp), "image.tif"), 32, 32)
    np.testing.assert_allclose(pixels[1, 5], np.linspace(-1, 1, 32), atol=0.01)


@pytest.mark.parametrize(
    ("value", "dtype", "message"),
    [
        (65536, np.int32, "integer pixels must lie in 0..65535"),
        (-1, np.int32, "integer pixels must lie in 0..65535"),
        (255, np.float32, "float pixels must lie in 0..1"),
        (np.nan, np.float32, "float pixels must lie in 0..1"),
    ],
)
def test_values_of_unknown_range_are_refused(tmp_path, value, dtype, message):
    path = saved(tmp_path, Image.fromarray(np.full((32, 32), value, dtype)), "image.tif")
    with pytest.raises(InputError, match=message):
        load_image(path, 32, 32)


def test_colours_of_16_bits(tmp_path):
    ramp = np.tile(np.linspace(0, 65535, 32).astype(">u2")[:, None], (32, 1, 3))
    rows = b"".join(b"\0" + row.tobytes() for row in ramp)  # filter 0; Pillow itself writes no such PNG
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", 32, 32, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    body = (struct.pack(">I", len(b)) + k + b + struct.pack(">I", zlib.crc32(k + b)) for k, b in chunks)
    (tmp_path / "image.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(body))
    pixels = load_image(tmp_path / "image.png", 32, 32)
    np.testing.assert_allclose(pixels[1, 5], np.linspace(-1, 1, 32), atol=0.01)


def test_bad_files_get_one_sentence(tmp_path):
    text = tmp_path / "text.png"
    text.write_text("not an image")
    with pytest.raises(InputError, match="not an image"):
        load_image(text, 32, 32)
    with pytest.raises(InputError, match="no such file"):
        load_image(tmp_path / "absent.png", 32, 32)
    with pytest.raises(InputError, match="is a folder; give a file"):
        load_image(tmp_path, 32, 32)
    whole = saved(tmp_path, Image.fromarray(picture(256, 256)), "cut.jpg")
    whole.write_bytes(whole.read_bytes()[:1500])
    with pytest.raises(InputError, match="does not decode"):
        load_image(whole, 32, 32)


def test_enormous_image_is_refused(tmp_path, monkeypatch):
    path = saved(tmp_path, Image.fromarray(picture(32, 32)))
    monkeypatch.setattr(readers, "PICTURE_PIXELS", 1023)
    with pytest.raises(InputError, match=r"has 32x32 pixels, more than .* million; scale it down"):
        load_image(path, 32, 32)


def test_strip_lays_frames_side_by_side(tmp_path):
    frames = np.stack([np.full((8, 10, 3), i, np.uint8) for i in range(9)])
    save_strip(frames, tmp_path / "strip.png", count=3)
    strip = np.asarray(Image.open(tmp_path / "strip.png"))
    assert strip.shape == (8, 30, 3)
    assert strip[0, ::10, 0].tolist() == [0, 4, 8]
    assert [p.name for p in tmp_path.iterdir()] == ["strip.png"]
