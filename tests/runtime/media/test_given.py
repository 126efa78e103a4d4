"""Images and videos from programs: an image of Pillow and an array are what a file with them is."""

import numpy as np
import pytest
from PIL import Image

from ltxrt.engines.errors import InputError
from ltxrt.runtime import Condition, Pipeline, Request
from ltxrt.runtime.media.given import kept
from ltxrt.runtime.media.read import read_image

SMALL = {"height": 64, "width": 96, "num_frames": 9, "steps": 2}


def pixels(*shape):
    return np.random.default_rng(5).integers(0, 256, (*shape, 3), dtype=np.uint8)


@pytest.fixture
def pipeline(tiny_bundle):
    return Pipeline(tiny_bundle("0.9.5"))


@pytest.mark.parametrize("use", ["image", "conditions"])
def test_an_image_is_the_same_as_a_file_from_pillow_and_as_an_array(pipeline, tmp_path, use):
    array = pixels(100, 130)  # of another size than the video
    Image.fromarray(array).save(tmp_path / "i.png")

    def frames(media):
        given = media if use == "image" else (Condition(media, frame=8, strength=0.8),)
        return pipeline("fog", **{use: given}, **SMALL).frames

    file = frames(tmp_path / "i.png")
    np.testing.assert_array_equal(frames(Image.open(tmp_path / "i.png")), file)
    np.testing.assert_array_equal(frames(array), file)
    assert (file != pipeline("fog", **SMALL).frames).any()


def test_a_video_is_the_same_as_a_file_as_images_and_as_an_array(pipeline, tmp_path):
    array = pixels(12, 70, 100)  # longer than the video
    images = [Image.fromarray(frame) for frame in array]
    images[0].save(tmp_path / "v.webp", save_all=True, append_images=images[1:], lossless=True)

    def frames(media):
        return pipeline("fog", input_video=media, denoise_strength=0.5, **SMALL).frames

    file = frames(tmp_path / "v.webp")
    np.testing.assert_array_equal(frames(array), file)
    np.testing.assert_array_equal(frames(images), file)


def test_a_request_keeps_an_image_as_it_was_given():
    image = Image.fromarray(pixels(8, 8))
    request, before = Request("fog", image=image), np.asarray(image).copy()
    image.paste("red", (0, 0, 8, 8))
    np.testing.assert_array_equal(request.image, before)
    assert request.files() == []


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "I;16", "CMYK", "1"])
def test_images_of_every_mode_are_converted_as_files_are(tmp_path, mode):
    image = Image.fromarray(pixels(8, 8)).convert("L" if mode == "I;16" else mode)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image).astype(np.uint16) * 200)
    name = tmp_path / ("i.tiff" if mode == "CMYK" else "i.png")
    image.save(name)
    np.testing.assert_array_equal(kept(image, "image"), read_image(name, "image"))


def test_the_orientation_of_a_photo_is_applied(tmp_path):
    image = Image.fromarray(pixels(8, 16))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "i.png", exif=exif)
    turned = kept(Image.open(tmp_path / "i.png"), "image")
    np.testing.assert_array_equal(turned, read_image(tmp_path / "i.png", "image"))
    assert turned.shape == (16, 8, 3)


@pytest.mark.parametrize(
    ("media", "message"),
    [
        (3, "image is of type int; it must be a file, an image of Pillow, or an array"),
        (np.zeros((8, 8, 3)), r"image float64 \(8, 8, 3\): it must be"),
        (np.zeros((8, 8, 4), np.uint8), r"image uint8 \(8, 8, 4\): it must be"),
        (np.zeros((3, 8, 8), np.uint8), r"image uint8 \(3, 8, 8\): it must be"),
        (np.zeros((8, 8, 3), np.float32), r"image float32 \(8, 8, 3\): it must be"),
        (np.zeros((0, 8, 3), np.uint8), r"image uint8 \(0, 8, 3\): it must be"),
        ([Image.new("RGB", (8, 8)), Image.new("RGB", (8, 9))], "image: its images have several sizes"),
        ([Image.new("RGB", (8, 8)), "i.png"], "image is of type list"),
        ([], "image is of type list"),
    ],
)
def test_what_is_no_image_is_refused_with_what_is(media, message):
    with pytest.raises(InputError, match=message) as refused:
        Request("fog", image=media)
    assert refused.value.field == "image"


def test_conditions_are_conditions():
    with pytest.raises(InputError, match=r"conditions .*: must be a list of conditions, as in \[Condition\("):
        Request("fog", conditions=Condition("i.png"))
    with pytest.raises(
        InputError, match=r"conditions\[1\] is of type str; give a Condition, as in"
    ) as refused:
        Request("fog", conditions=(Condition("i.png"), "j.png"))
    assert refused.value.field == "conditions"


@pytest.mark.parametrize(
    ("request_", "shown"),
    [
        (Request("fog"), "Request('fog')"),
        (Request("fog", seed=7, cfg_star=False), "Request('fog', cfg_star=False, seed=7)"),
        (Request("fog", image=pixels(4, 8)), "Request('fog', image=<uint8 (4, 8, 3)>)"),
        (Request("fog", conditions=(Condition("i.png", 8, 0.5),)),
         "Request('fog', conditions=(Condition('i.png', frame=8, strength=0.5),))"),
    ],
)  # fmt: skip
def test_a_request_is_printed_with_what_differs_from_the_defaults(request_, shown):
    assert repr(request_) == shown
