import json

import pytest
from click.testing import CliRunner

from ltxrt.runtime import EnginePool
from ltxrt.runtime.cli import main

REQUEST = ("--prompt", "fog", "--height", "64", "--width", "96", "--num-frames", "17", "--steps", "3")


@pytest.fixture
def explained(two_pass_bundle, monkeypatch):
    """A function that runs `ltx-run --explain` where loading an engine fails."""

    def fail(*_):
        raise AssertionError("an engine was loaded")

    monkeypatch.setattr(EnginePool, "load", fail)
    common = ["--bundle", str(two_pass_bundle), "--explain"]
    return lambda *arguments: CliRunner().invoke(main, [*common, *map(str, arguments)])


def test_a_request_is_explained_and_nothing_is_loaded(explained):
    done = explained(*REQUEST)
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert lines[0].startswith("LTX-Video 0.9.5 on onnxruntime (CPU ") and lines[0].endswith("preset default")
    assert "  pass 1  64x96 of 17 frames: 18 tokens, 3 steps, 3 forwards each" in lines
    (row,) = [line for line in lines if line.startswith("  transformer ")]
    assert row.split()[1] == "transformer.fp32.onnx" and "B=3 N=18 K=1 T=256 (3×)" in row
    assert any(line.startswith("memory  ") and line.endswith("it fits") for line in lines)
    assert any(line.startswith("time    not measured here yet") for line in lines)


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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--height", "-1"), "--height -1"),
        (("--precision", "transformer=bf16"), "the bundle has transformer in fp32, not in bf16"),
        (("--backend", "abacus"), "--backend 'abacus'"),
        (("--preset", "none"), "--preset 'none'"),
    ],
)
def test_what_a_run_refuses_is_refused(explained, options, message):
    done = explained(*REQUEST, *options)
    assert done.exit_code == 2 and message in done.stderr.replace("value for ", "")
