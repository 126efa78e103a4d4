"""Conditions that do not fit are refused in one sentence, before any engine loads."""

import numpy as np
import pytest
from PIL import Image

from ltxrt.engines.errors import InputError
from ltxrt.runtime import engine_pool
from ltxrt.runtime.ltxv import conditions as given
from ltxrt.runtime.ltxv.pipeline import Pipeline
from ltxrt.runtime.media.read import Condition
from ltxrt.runtime.media.write import VideoWriter
from ltxrt.runtime.request.request import Request

SMALL = {"height": 64, "width": 96, "num_frames": 25, "steps": 3}


@pytest.fixture
def pipeline(tiny_bundle, monkeypatch):
    monkeypatch.setattr(engine_pool, "load_engine", None)
    return Pipeline(tiny_bundle("0.9.5"))


@pytest.fixture
def files(tmp_path):
    Image.new("RGB", (96, 64), "teal").save(tmp_path / "i.png")
    for name, count in (("long.mp4", 40), ("nine.mp4", 9), ("short.mp4", 5)):
        with VideoWriter(tmp_path / name, 64, 96, 24, {}) as writer:
            for i in range(count):
                writer.write(np.full((64, 96, 3), i, np.uint8))
    return tmp_path


def pixels(frames, height=64, width=96):
    return np.zeros((3, frames, height, width), np.float32)


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        (("i.png", 25, 1.0), "frame 25 must be between 0 and 24"),
        (("i.png", 8, 1.2), "strength 1.2 must be between 0 and 1"),
        (("nine.mp4", 12, 1.0), "a video must begin on a multiple of 8; nearest to 12 are 8 and 16"),
        (("absent.png", 0, 1.0), "absent.png: no such file"),
        ((pixels(9), 20, 1.0), "9 frames from frame 20 pass the video's 25; begin at frame 16 or earlier"),
        ((pixels(10), 0, 1.0), "a video of 10 frames must have 8k\\+1; nearest are 9 and 17"),
        ((pixels(9, 32), 0, 1.0), r"must be float32 \(3, 64, 96\) in -1..1"),
        ((pixels(9).astype(np.float64), 0, 1.0), r"float64 .* it must be .* float32 \(3, "),
    ],
)
def test_conditions_that_do_not_fit(pipeline, files, condition, message):
    media, frame, strength = condition
    media = files / media if isinstance(media, str) else media
    with pytest.raises(InputError, match=message):
        pipeline.settings(Request("fog", conditions=(Condition(media, frame, strength),), **SMALL))


def test_two_beginnings_are_refused(pipeline, files):
    both = (Condition(files / "i.png"), Condition(files / "nine.mp4"))
    with pytest.raises(InputError, match=r"i\.png and .*nine\.mp4 both begin at frame 0"):
        pipeline.settings(Request("fog", conditions=both, **SMALL))


@pytest.mark.parametrize(
    ("name", "frame", "message"),
    [
        ("short.mp4", 0, "has 5 frames, and a video needs 9 or more; give a longer one or an image"),
        ("short.mp4", 8, "has 5 frames, and a video needs 9 or more"),
        (
            "long.mp4",
            24,
            "1 of its frames fit from frame 24 on, and a video needs 9 or more",
        ),
    ],
)
def test_a_video_too_short_for_a_sequence_is_refused(pipeline, files, name, frame, message):
    with pytest.raises(InputError, match=message):
        pipeline.settings(Request("fog", conditions=(Condition(files / name, frame),), **SMALL))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"input_video": "nine.mp4", "denoise_strength": 0.5},
            "nine.mp4: has 9 usable frames and num_frames is 25",
        ),
        ({"input_video": "absent.mp4", "denoise_strength": 0.5}, "absent.mp4: no such file"),
        ({"denoise_strength": 0.5}, "begin with a video that is there; give input_video, a file"),
        ({"skip_initial": 1}, "begin with a video that is there; give input_video, a file"),
        (
            {"input_video": "long.mp4", "denoise_strength": 0.1},
            "denoise_strength 0.1 of 3 steps leaves none",
        ),
        ({"input_video": "long.mp4"}, "input_video would be all noise"),
        ({"image": "i.png", "preparation": "sepia"}, "preparation 'sepia': must be one of official, plain"),
    ],
)
def test_starts_that_cannot_be(pipeline, files, values, message):
    values = {k: files / v if k in ("input_video", "image") else v for k, v in values.items()}
    with pytest.raises(InputError, match=message):
        pipeline.settings(Request("fog", **values, **SMALL))


def test_what_fits_is_accepted(pipeline, files):
    conditions = (Condition(files / "long.mp4"), Condition(files / "i.png", 19, 0.4))
    plan = pipeline.plan(Request("fog", conditions=conditions, **SMALL))
    settings, size, vae = plan.settings, plan.passes[0].size, plan.model.vae
    shapes = [given.read(c, settings, size, vae).shape for c in settings.conditions]
    assert shapes == [(3, 25, 64, 96), (3, 1, 64, 96)]
    video = Request("fog", input_video=files / "long.mp4", denoise_strength=0.7, **SMALL)
    plan = pipeline.plan(video)
    assert given.read_whole(plan.settings, size, vae).shape == (3, 25, 64, 96)
    assert len(plan.passes[0].sigmas) == 2
