"""`Pipeline.again`: a video made again from Python, by what it says of itself."""

import warnings

import numpy as np
import pytest
from PIL import Image

from ltxrt.engines.errors import InputError, UnknownKeywordError
from ltxrt.engines.host import physical_cores
from ltxrt.runtime.ltxv.pipeline import Pipeline
from ltxrt.runtime.request import record

SMALL = {"height": 64, "width": 96, "num_frames": 9, "steps": 2}


@pytest.fixture
def pipeline(tiny_bundle):
    with Pipeline(tiny_bundle("0.9.5"), backend="cpu") as opened:
        yield opened


def silently(function, *arguments, **keywords):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return function(*arguments, **keywords)


def test_a_video_is_made_again_and_with_changes(pipeline, tmp_path):
    Image.new("RGB", (96, 64), "teal").save(tmp_path / "i.png")
    first = pipeline(
        "fog", seed=None, image=tmp_path / "i.png", timesteps=(1.0, 0.6), **(SMALL | {"steps": None})
    )
    path = first.save(tmp_path / "v.mp4")
    again = silently(pipeline.again, path)
    np.testing.assert_array_equal(again.frames, first.frames)
    assert again.metadata == first.metadata
    (tmp_path / "photos").mkdir()
    (tmp_path / "i.png").rename(tmp_path / "photos" / "j.png")
    other = silently(pipeline.again, path, prompt="rain", steps=3, sources=[tmp_path / "photos"])
    settings = other.settings
    assert (settings.request.prompt, settings.preset.passes[0].steps) == ("rain", 3)
    assert settings.request.seed == first.settings.request.seed
    assert settings.request.image == tmp_path / "photos" / "j.png"


def test_it_is_said_why_the_same_frames_cannot_be_expected(pipeline, tiny_bundle, tmp_path):
    path = pipeline("fog", **SMALL).save(tmp_path / "v.gif")
    many = physical_cores() + 1
    with (
        Pipeline(tiny_bundle("0.9.5"), backend="cpu", threads=many) as another,
        pytest.warns(UserWarning, match=rf"v\.gif was made with threads {many - 1}; otherwise pixels differ"),
    ):
        another.again(path)
    with (
        Pipeline(tiny_bundle("0.9.1"), backend="cpu") as another,
        pytest.warns(UserWarning, match=r"other weights of .*transformer.*; this will be another video"),
    ):
        another.again(path)


def test_what_cannot_be_is_refused_in_a_sentence(pipeline, tmp_path):
    path = pipeline("fog", **SMALL).save(tmp_path / "v.gif")
    with pytest.raises(UnknownKeywordError, match="num_step is no keyword that is known here; did you mean"):
        pipeline.again(path, num_step=3)
    with pytest.raises(InputError, match="steps 0: must be between 1 and 1000"):
        pipeline.again(path, steps=0)
    with pytest.raises(InputError, match=r"sources .*absent: no such folder"):
        pipeline.again(path, sources=[tmp_path / "absent"])
    pixels = np.zeros((8, 8, 3), np.uint8)
    path = pipeline("fog", image=pixels, **SMALL).save(tmp_path / "w.gif")
    assert record.read(path).sources[0].sha256 is not None
    with pytest.raises(InputError, match=r"made from array uint8 \(8, 8, 3\), pixels that a program gave"):
        pipeline.again(path)
    np.testing.assert_array_equal(
        pipeline.again(path, image=pixels).frames, pipeline("fog", image=pixels, **SMALL).frames
    )
