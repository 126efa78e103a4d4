import json

import pytest
from click.testing import CliRunner

from ltxrt.engines.machine import resources
from ltxrt.engines.storage import times
from ltxrt.runtime import EnginePool, Pipeline, Request, ltxv
from ltxrt.runtime.cli import main

REQUEST = ("--prompt", "fog", "--height", "64", "--width", "96", "--num-frames", "17", "--steps", "3")


@pytest.fixture
def explained(two_pass_bundle, monkeypatch, tmp_path):
    """A function that runs `ltx-run --explain` where loading an engine fails."""

    def fail(*_):
        raise AssertionError("an engine was loaded")

    monkeypatch.setattr(EnginePool, "load", fail)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # where times are noted
    common = ["--bundle", str(two_pass_bundle), "--explain"]
    return lambda *arguments: CliRunner().invoke(main, [*common, *map(str, arguments)])


def test_a_request_is_explained_and_nothing_is_loaded(explained):
    done = explained(*REQUEST)
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert lines[0].startswith("LTX-Video 0.9.5 on onnxruntime (CPU ") and lines[0].endswith("preset default")
    assert "  pass 1  17 frames of 96×64: 18 tokens, 3 steps, 3 forwards each" in lines
    (row,) = [line for line in lines if line.startswith("  transformer ")]
    assert row.split()[1] == "transformer.fp32.onnx" and "B=3 N=18 K=1 T=256 (3×)" in row
    assert any(line.startswith("memory  ") and line.endswith("it fits") for line in lines)
    assert any(line.startswith("time    not measured here yet") for line in lines)


def test_an_output_that_exists_is_no_obstacle_and_stays(explained, tmp_path):
    (tmp_path / "v.mp4").write_bytes(b"video")
    assert explained(*REQUEST, "--output", tmp_path / "v.mp4").exit_code == 0
    assert (tmp_path / "v.mp4").read_bytes() == b"video"


def test_the_same_as_data(explained):
    done = explained("--json", *REQUEST)
    found = json.loads(done.stdout.splitlines()[-1])
    assert [stage["name"] for stage in found["stages"]] == ["text encoder", "transformer", "image decoder"]
    assert found["fits"] is True and 0 < found["peak"] < found["available"]
    assert found["plan"]["passes"][0]["tokens"] == 18
    assert all(stage["problem"] == "" and stage["engine"].endswith(".onnx") for stage in found["stages"])


def test_every_prompt_of_a_file_is_explained_once_for_all_its_seeds(explained, tmp_path):
    (tmp_path / "prompts.txt").write_text("fog\nrain\n")
    done = explained("--prompts", tmp_path / "prompts.txt", "--seeds", "1-3", *REQUEST[2:])
    assert done.exit_code == 0, done.output
    assert sum(line.startswith("LTX-Video") for line in done.output.splitlines()) == 2


def test_times_are_those_that_were_measured_here(explained, two_pass_bundle):
    pipeline = Pipeline(two_pass_bundle)
    plan = pipeline.plan(Request("fog", height=64, width=96, num_frames=17, steps=3))
    expected = ltxv.expected_seconds(plan, pipeline.engines)
    key = ltxv.timing_key(plan, pipeline.engines)
    times.note(key, {"transformer": 100 / expected["transformer"]})
    found = explained(*REQUEST).output.splitlines()
    (row,) = [line for line in found if line.startswith("  transformer ")]
    assert row.endswith("1 min 40 s") and any(line.startswith("time    not measured") for line in found)
    times.note(key, {stage: 10 / seconds for stage, seconds in expected.items() if stage != "transformer"})
    assert "time    about 2 min 00 s, as measured here before" in explained(*REQUEST).output.splitlines()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--height", "-1"), "--height -1"),
        (("--precision", "transformer=fp16"), "the bundle has transformer in fp32, not in fp16"),
        (
            ("--precision", "transformer=bf16"),
            "onnxruntime does not run bf16; take --precision ",
        ),
        (("--precision", "bf16"), "text_encoder in bf16: onnxruntime does not run bf16; take --precision "),
        (("--backend", "abacus"), "--backend 'abacus'"),
        (("--preset", "none"), "--preset 'none'"),
        (("--output", "v.mp4", "--crf", "99"), "--crf 99: must be a whole number"),
        (("--output", "v.gif", "--codec", "av1"), "--codec 'av1': .gif has no codec"),
        (("--output", "v.mp4", "--height", "63"), "--height 63: must be an even number"),
        (("--output", "v.mp4", "--seeds", "1-2"), "--output v.mp4: is one name for 2 videos"),
        (("--output", "v.mp4", "--preview", "v.txt"), "--preview v.txt: the suffix must be"),
    ],
)
def test_what_a_run_refuses_is_refused(explained, options, message):
    done = explained(*REQUEST, *options)
    assert done.exit_code == 2 and message in done.stderr.replace("value for ", "")


@pytest.fixture
def video(two_pass_bundle, tmp_path, monkeypatch):
    """A function that makes a small video with `ltx-run` and returns what it printed."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    common = ["--bundle", two_pass_bundle, *REQUEST[:-1], "1", "--output", tmp_path / "v.gif"]

    def run(*options):
        done = CliRunner().invoke(main, list(map(str, [*common, "--overwrite", *options])))
        assert done.exit_code == 0, done.output
        return done

    return run


def test_the_backend_that_was_chosen_is_said_before_the_work_and_only_then(video):
    lines = video().stderr.splitlines()
    (place,) = [number for number, line in enumerate(lines) if line.startswith("backend: onnxruntime (CPU ")]
    assert place < next(number for number, line in enumerate(lines) if line.startswith("transformer"))
    for options in (("--backend", "cpu"), ("--quiet",)):
        assert "backend: " not in video(*options).stderr
    events = [json.loads(line) for line in video("--json").stdout.splitlines()]
    assert any(event["event"] == "note" and "onnxruntime" in event["message"] for event in events)


def test_too_little_memory_is_warned_of_before_the_work_with_what_to_change(video, monkeypatch):
    monkeypatch.setattr(resources, "memory", lambda: resources.Memory(1 << 30, 1 << 20, None))
    lines = video("--vae-memory", "300MiB").stderr.splitlines()
    (place,) = [number for number, line in enumerate(lines) if line.startswith("warning: the stage ")]
    assert lines[place].endswith("give a smaller --vae-memory")
    assert place < next(number for number, line in enumerate(lines) if line.startswith("transformer"))


def test_a_precision_that_the_backend_does_not_run_is_refused_before_loading(parity_case, explained):
    given = ["--bundle", parity_case / "bundle", *REQUEST, "--backend", "cpu", "--precision", "bf16"]
    done = CliRunner().invoke(main, [*map(str, given), "--output", str(parity_case / "no.gif")])
    assert done.exit_code == 2
    assert "onnxruntime does not run bf16; take --precision text_encoder=fp32, or --backend" in done.stderr
