"""Sizes between whole latent cells: the video is the centre, and the first frames, of a larger one.

That it is the official pipeline's is shown by vectors (`test_official_parity.py`, the cropped cases).
"""

import numpy as np
import pytest
from PIL import Image

from ltxrt.engines.errors import InputError
from ltxrt.runtime.ltxv import conditions as given
from ltxrt.runtime.ltxv import plan as plans
from ltxrt.runtime.ltxv.pipeline import Pipeline
from ltxrt.runtime.media.preprocess import PREPARATIONS, Fit, prepare
from ltxrt.runtime.media.read import Condition
from ltxrt.runtime.request.request import Request
from ltxrt.runtime.sampling.latents import Margins, VideoShape

ODD = {"height": 75, "width": 134, "num_frames": 12, "steps": 2, "seed": 5}
WHOLE = {**ODD, "height": 96, "width": 160, "num_frames": 17}


@pytest.fixture
def pipeline(tiny_bundle):
    return Pipeline(tiny_bundle("0.9.5"))


def test_a_video_is_the_centre_of_the_one_at_the_next_size(pipeline):
    odd, whole = (pipeline.generate(Request("fog", **size)).frames for size in (ODD, WHOLE))
    assert odd.shape == (12, 75, 134, 3)
    np.testing.assert_array_equal(odd, whole[:12, 10:85, 13:147])


def test_two_passes_are_scaled_before_they_are_cropped(two_pass_bundle):
    two = {"two_passes": True, "downscale_factor": 0.67, "second_pass": {"timesteps": (0.7, 0.4)}}
    pipeline = Pipeline(two_pass_bundle)
    odd, whole = (pipeline.generate(Request("fog", **size, **two)).frames for size in (ODD, WHOLE))
    np.testing.assert_array_equal(odd, whole[:12, 10:85, 13:147])


def test_the_plan_says_both_sizes(pipeline):
    plan = pipeline.plan(Request("fog", **ODD))
    told = plan.to_json()
    assert told["output"] == {"num_frames": 12, "height": 75, "width": 134}
    assert told["generated"] == {"num_frames": 17, "height": 96, "width": 160}
    assert plan.passes[0].size == VideoShape(17, 96, 160)
    assert plans.notes(plan) == ["note: made as 17 frames of 160×96 and cropped to 12 frames of 134×75"]
    assert plans.notes(pipeline.plan(Request("fog", **WHOLE))) == []


@pytest.mark.parametrize("size", [{}, {"height": 96, "width": 160}])
def test_a_source_as_long_as_the_video_is_long_enough(pipeline, size):
    video = np.linspace(-1, 1, 3 * 12 * 75 * 134, dtype=np.float32).reshape(3, 12, 75, 134)
    request = Request("fog", **ODD, input_video=video, denoise_strength=0.9)
    plan = pipeline.plan(request)
    pixels = given.read_whole(plan.settings, plan.passes[0].size, plan.model.vae)
    assert pixels.shape == (3, 17, 96, 160)
    np.testing.assert_array_equal(pixels[:, :12, 10:85, 13:147], video)
    np.testing.assert_array_equal(pixels[:, 12:], np.repeat(pixels[:, 11:12], 5, axis=1))
    with pytest.raises(InputError, match=r"has 11 usable frames and num_frames is 12"):
        pipeline.plan(Request("fog", **ODD, input_video=video[:, :11], denoise_strength=0.9))


def test_a_condition_ends_with_the_video_and_not_with_what_is_made(pipeline, tmp_path):
    Image.new("RGB", (134, 75), "teal").save(tmp_path / "i.png")
    pipeline.plan(Request("fog", **ODD, conditions=(Condition(tmp_path / "i.png", 11),)))
    with pytest.raises(InputError, match="frame 12 must be between 0 and 11"):
        pipeline.plan(Request("fog", **ODD, conditions=(Condition(tmp_path / "i.png", 12),)))


@pytest.mark.parametrize("size", [(96, 160), (64, 96)])
@pytest.mark.parametrize("steps", ["official", "plain"])
def test_what_is_cropped_in_the_end_is_grey_in_the_beginning(size, steps):
    """A picture of the requested size is in the centre; its margins are the output's, scaled to the pass."""
    around = Margins(10, 11, 13, 13)
    picture = np.full((75, 134, 3), 255, np.uint8)
    pixels = prepare(picture, Fit((75, 134), size, around=around), PREPARATIONS[steps])
    assert pixels.shape == (3, *size)
    rows, columns = (pixels[0].mean(axis=axis) for axis in (1, 0))
    wanted = [10 * size[0] / 96, 11 * size[0] / 96, 13 * size[1] / 160, 13 * size[1] / 160]
    found = [np.abs(line) < 0.2 for line in (rows, rows[::-1], columns, columns[::-1])]
    for grey, margin in zip(found, wanted):
        assert abs(int(np.argmin(grey)) - margin) <= 1
    centre = pixels[:, size[0] // 2, size[1] // 2]
    np.testing.assert_allclose(centre, 1, atol=0.03)


@pytest.mark.parametrize(("asked", "made"), [(1, 1), (2, 9), (9, 9), (10, 17), (121, 121), (122, 129)])
def test_frames_are_counted_as_officially(asked, made):
    class Vae:
        temporal_compression, spatial_compression = 8, 32

    assert VideoShape(asked, 33, 32).padded(Vae) == VideoShape(made, 64, 32)
    assert made == ((asked - 2) // 8 + 1) * 8 + 1
