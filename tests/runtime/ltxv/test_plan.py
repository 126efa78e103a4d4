"""A run's plan: what it says is what runs, it is plain data, and nothing is computed or read twice."""

import json

import numpy as np
import pytest
from PIL import Image

from ltxrt.engines.errors import InputError, worded
from ltxrt.runtime.ltxv import conditions
from ltxrt.runtime.ltxv import pipeline as pipeline_module
from ltxrt.runtime.ltxv import plan as plan_module
from ltxrt.runtime.ltxv.noise import noise_sources
from ltxrt.runtime.ltxv.pipeline import Pipeline
from ltxrt.runtime.media import read as media
from ltxrt.runtime.media.read import Condition
from ltxrt.runtime.noise import file as noise_file
from ltxrt.runtime.request.request import Request
from ltxrt.runtime.sampling import schedule

SMALL = {"height": 64, "width": 96, "num_frames": 17, "steps": 3}


@pytest.fixture
def pipeline(tiny_bundle):
    return Pipeline(tiny_bundle("0.9.5"))


@pytest.fixture
def picture(tmp_path):
    Image.new("RGB", (96, 64), "teal").save(tmp_path / "i.png")
    return tmp_path / "i.png"


def test_a_plan_is_plain_data_of_the_whole_run(pipeline, picture):
    given = (Condition(picture, 8, 0.5),)
    plan = pipeline.plan(Request("fog", conditions=given, guidance_scale=3, stg_scale=0, **SMALL))
    data = json.loads(json.dumps(plan.to_json()))
    (one,) = data["passes"]
    assert one["size"] == {"num_frames": 17, "height": 64, "width": 96}
    assert one["shape"] == {"frames": 3, "height": 2, "width": 3}
    assert (one["own_tokens"], one["tokens"]) == (6, 24)
    assert len(one["sigmas"]) == len(one["guidance"]) == 3 and one["sigmas"][0] == 1
    assert {tuple(step["branches"]) for step in one["guidance"]} == {("negative", "positive")}
    assert one["guidance"][0]["streams"]["video"]["cfg"] == 3
    assert list(data["components"]) == ["text_encoder", "vae_encoder", "transformer", "vae_decoder"]
    assert set(data["components"].values()) == {"fp32"}
    assert [item["start_frame"] for item in data["conditions"]] == [8]
    assert [tile["latents"]["frames"] for tile in data["encoder_tiles"]] == [1]
    assert data["decoder_tile"]["frames"] == 3
    assert data["rope"]["causal"] is True and data["rope"]["frame_rate"] == plan.settings.preset.frame_rate
    assert str(picture.parent) not in json.dumps({**data, "conditions": []})


def test_a_plan_says_which_tiles_its_memory_takes(pipeline):
    whole = pipeline.plan(Request("fog", **SMALL)).decoder_tile
    size = {"height": 704, "width": 704, "num_frames": 121}
    cut = pipeline.plan(Request("fog", vae_memory=128 << 20, **size))
    assert whole.cells == 18 and cut.decoder_tile.cells < cut.passes[0].shape.tokens
    with pytest.raises(InputError, match=r"memory budget .* is too small"):
        pipeline.plan(Request("fog", vae_memory=1000, **SMALL))


@pytest.mark.parametrize(
    ("given", "needed"),
    [
        ({"gpu": "H100"}, "generator cuda"),
        ({"image_strength": 0.5}, "image"),
        ({"downscale_factor": 0.5}, "two_passes"),
    ],
)
def test_what_works_only_with_another_setting_is_told_of_without_it(pipeline, given, needed):
    [note] = plan_module.notes(pipeline.plan(Request("fog", height=64, width=96, num_frames=9, **given)))
    assert worded(note, str) == f"note: {next(iter(given))} has no effect without {needed}"


def test_the_steps_that_run_are_the_plan_s(pipeline):
    steps = []
    stream = pipeline.stream(Request("fog", **SMALL), lambda event: event.step and steps.append(event.step))
    assert tuple(step.sigma for step in steps) == stream.plan.passes[0].sigmas
    assert {step.latents["video"].shape for step in steps} == {(1, 18, 16)}


def test_the_tokens_that_run_are_those_that_were_counted(pipeline, picture):
    pixels = np.zeros((3, 9, 64, 96), np.float32)
    given = (Condition(pixels, 8, 0.5), Condition(picture, 3), Condition(picture))
    plan = pipeline.plan(Request("fog", conditions=given, **SMALL))
    stream = pipeline.start(plan, 0, None, noise_sources(plan.settings))
    one = plan.passes[0]
    assert stream.own.start == one.own_tokens == 18
    assert stream.tokens.shape == (1, one.own_tokens + one.shape.tokens, 16)


@pytest.fixture
def counted(monkeypatch):
    """How often each of some functions was called."""
    found = {}

    def count(module, name):
        real = getattr(module, name)
        found[name] = 0

        def call(*arguments, **options):
            found[name] += 1
            return real(*arguments, **options)

        monkeypatch.setattr(module, name, call)

    for module, name in (
        (schedule, "sigmas"),
        (plan_module.guidance, "plan"),
        (noise_file, "load"),
        (media, "read_image"),
        (pipeline_module, "Tokenizer"),
    ):
        count(module, name)
    return found


def test_a_run_computes_and_reads_once(pipeline, picture, tmp_path, counted):
    np.save(tmp_path / "n.npy", np.random.default_rng(0).standard_normal((1, 16, 3, 2, 3), dtype=np.float32))
    request = Request("fog", image=picture, noise=tmp_path / "n.npy", **SMALL)
    pipeline.generate(request)
    assert counted == {"sigmas": 1, "plan": 1, "load": 1, "read_image": 1, "Tokenizer": 1}
    pipeline.generate(request)
    assert counted == {"sigmas": 2, "plan": 2, "load": 2, "read_image": 2, "Tokenizer": 1}


@pytest.mark.parametrize("kept", [0, conditions.KEPT_BYTES])
def test_files_too_large_to_keep_are_read_again_and_make_the_same_video(
    pipeline, picture, counted, kept, monkeypatch
):
    request = Request("fog", image=picture, **SMALL)
    frames = pipeline.generate(request).frames
    monkeypatch.setattr(conditions, "KEPT_BYTES", kept)
    counted["read_image"] = 0
    np.testing.assert_array_equal(pipeline.generate(request).frames, frames)
    assert counted["read_image"] == (1 if kept else 2)
