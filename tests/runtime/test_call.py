"""Calling a pipeline with prompts and keywords, and what it and its parts look like when they are printed."""

import numpy as np
import pytest

from ltxrt.engines.errors import InputError, UnknownKeywordError
from ltxrt.runtime import Pipeline, Request
from ltxrt.runtime.ltxv.estimate import explanation

SMALL = {"height": 64, "width": 96, "num_frames": 9, "steps": 2}


@pytest.fixture
def pipeline(tiny_bundle):
    return Pipeline(tiny_bundle("0.9.5"))


def test_a_call_makes_the_video_of_the_request_with_these_settings(pipeline):
    called, asked = pipeline("fog", seed=7, **SMALL), pipeline.generate(Request("fog", seed=7, **SMALL))
    np.testing.assert_array_equal(called.frames, asked.frames)
    assert called.metadata == asked.metadata


def test_several_prompts_make_a_list_of_their_videos(pipeline):
    one, two = pipeline(["fog", "waves"], **SMALL)
    np.testing.assert_array_equal(one.frames, pipeline("fog", **SMALL).frames)
    np.testing.assert_array_equal(two.frames, pipeline("waves", **SMALL).frames)
    assert pipeline([], **SMALL) == []


@pytest.mark.parametrize("prompts", [["fog", " "], ["fog", 3]])
def test_a_wrong_prompt_is_refused_before_the_first_video(pipeline, monkeypatch, prompts):
    monkeypatch.setattr(Pipeline, "generate", None)
    with pytest.raises(InputError) as refused:
        pipeline(prompts, **SMALL)
    assert refused.value.field == "prompt"


def test_settings_that_fit_no_video_are_refused_before_the_first_one(pipeline, monkeypatch):
    monkeypatch.setattr(Pipeline, "generate", None)
    with pytest.raises(InputError, match="preset 'none': this bundle has default"):
        pipeline(["fog", "waves"], preset="none", **SMALL)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"imge": "i.png"}, "imge is no keyword that is known here; did you mean image?"),
        ({"num_inference_steps": 3}, "did you mean steps?"),
        ({"compat": "diffusers"}, "did you mean reference?"),
        ({"Höhe": 3}, "'Höhe' is no keyword that is known here; they are prompt, negative_prompt, preset,"),
    ],
)
def test_an_unknown_keyword_is_a_type_error_that_names_the_nearest(pipeline, given, message):
    with pytest.raises(UnknownKeywordError) as refused:
        pipeline("fog", **given)
    assert message in str(refused.value)
    assert isinstance(refused.value, TypeError) and isinstance(refused.value, InputError)


def test_the_error_carries_the_keyword_and_the_setting(pipeline, tiny_bundle):
    with pytest.raises(UnknownKeywordError) as refused:
        pipeline("fog", hight=64)
    assert refused.value.field == "hight"
    with pytest.raises(UnknownKeywordError, match=r"did you mean backend\?"):
        Pipeline(tiny_bundle("0.9.5"), bakend="onnxruntime")
    with pytest.raises(InputError) as refused:
        pipeline("fog", steps=0)
    assert refused.value.field == "steps"


@pytest.mark.parametrize("run", ["plan", "generate", "stream"])
def test_a_prompt_where_a_request_belongs_is_told_apart(pipeline, run):
    with pytest.raises(InputError, match="the request is of type str; give a Request, as in Request"):
        getattr(pipeline, run)("a cat")


def test_a_prompt_of_another_type_is_refused(pipeline):
    with pytest.raises(InputError, match="prompt is of type int; give a text or several"):
        pipeline(3)


def test_parts_are_printed_in_a_line(pipeline):
    root = pipeline.bundle.root
    parts = "text_encoder fp32, transformer fp32, vae_encoder fp32, vae_decoder fp32"
    assert repr(pipeline) == f"<Pipeline {str(root)!r}: LTX-Video 0.9.5 on onnxruntime>"
    assert repr(pipeline.bundle) == f"<Bundle {str(root)!r}: LTX-Video 0.9.5; {parts}>"
    plan = pipeline.plan(Request("fog", **SMALL))
    runs = "text_encoder fp32, transformer fp32, vae_decoder fp32"
    assert repr(plan) == f"<Plan: 9 frames of 96×64 at 25/s; steps: 2 at 96×64; {runs}>"


def test_a_report_is_told_of_the_stages_and_may_cancel(pipeline):
    told = []
    pipeline("fog", progress=told.append, **SMALL)
    assert list(dict.fromkeys(one.stage for one in told)) == ["text encoder", "transformer", "image decoder"]
    assert [(one.done, one.total) for one in told if one.stage == "transformer"] == [(0, 2), (1, 2), (2, 2)]

    def cancel(progress):
        if progress.done == 1:
            raise RuntimeError("cancelled")

    with pytest.raises(RuntimeError, match="cancelled"):
        pipeline("fog", progress=cancel, **SMALL)


def test_progress_is_shown_on_stderr_if_that_is_asked_for(pipeline, capsys):
    pipeline("fog", **SMALL)
    assert capsys.readouterr() == ("", "")
    pipeline(["fog", "waves"], progress=True, **SMALL)
    shown, lines = capsys.readouterr()
    assert shown == ""
    stages = [line.split("  ")[0].split(":")[0] for line in lines.splitlines()]
    assert stages[0] == "text encoder"
    assert {"video 1/2 › transformer", "video 2/2 › image decoder"} <= set(stages)


def test_progress_of_another_type_is_refused_before_the_work(pipeline, monkeypatch):
    monkeypatch.setattr(Pipeline, "prepare", None)
    with pytest.raises(InputError, match="progress is of type int; give True, False or a function"):
        pipeline("fog", progress=1, **SMALL)


def test_a_prompt_that_is_cut_off_is_warned_of_once_before_the_work(pipeline, monkeypatch):
    monkeypatch.setattr(Pipeline, "generate", lambda *_, **__: None)
    monkeypatch.setattr(Pipeline, "encode_prompts", lambda *_, **__: None)
    with pytest.warns(UserWarning, match=r"has \d+ tokens and max_tokens is 8: its end is cut off") as warned:
        pipeline(["fog and waves " * 9, "fog and waves " * 9], max_tokens=8, **SMALL)
    assert [str(one.message).split()[0] for one in warned] == ["negative_prompt", "prompt"]
    assert {one.filename for one in warned} == {__file__}


def test_a_request_beyond_the_memory_is_warned_of(pipeline, monkeypatch):
    monkeypatch.setattr(explanation, "_memory", lambda *_: ("memory", 1 << 10, 1 << 30))
    with pytest.warns(UserWarning, match="^the stage .* of memory, of which .* are available"):
        pipeline("fog", **SMALL)
