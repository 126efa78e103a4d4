"""`ltx-run` in a real terminal, and what it prints elsewhere. No test depends on how fast the machine is."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import sys

import pytest
from click.testing import CliRunner
from PIL import Image
from terminals import Terminal

from ltxrt.engines.terminal import interrupts, jobs
from ltxrt.runtime.cli import main

SMALL = ("--height", 64, "--width", 96, "--num-frames", 9, "--steps", 2)
CTRL_C = b"\x03"

PROGRAM = """
import sys
from ltxrt.runtime.start import main
sys.argv = ["ltx-run", *sys.argv[1:]]
main()
"""
# Whatever imports NumPy waits until the file is there.
HELD = (
    """
import pathlib, sys, time
class Held:
    def find_spec(self, name, path=None, target=None):
        while name == "numpy" and not pathlib.Path("go").exists():
            time.sleep(0.01)
sys.meta_path.insert(0, Held())
"""
    + PROGRAM
)


def asked(bundle, *extra):
    return [str(a) for a in ("--bundle", bundle, "--prompt", "fog", "--backend", "onnxruntime", *extra)]


def in_terminal(bundle, folder, *extra, program=PROGRAM):
    command = [sys.executable, "-c", program, *asked(bundle, *extra)]
    return Terminal(command, folder, XDG_CACHE_HOME=str(folder.parent))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def test_bars_are_on_the_screen_before_anything_heavy_is_imported(tiny_bundle, folder):
    with in_terminal(tiny_bundle("0.9.5"), folder, *SMALL, "--output", "v.gif", program=HELD) as terminal:
        terminal.wait_for(lambda text: "ltx-run" in text and "━" in text and "starting" in text)
        (folder / "go").touch()
        assert terminal.end() == 0
    lines = terminal.text.splitlines()
    for stage in ("text encoder", "transformer", "image decoder", "writing v.gif"):
        assert [line for line in lines if re.fullmatch(rf"{stage}  [0-9.]+ s", line)], terminal.text
    assert lines[-1].startswith("v.gif: 9 frames in ")
    assert "━" not in terminal.text  # the bars are gone, and hidden cursors with them
    assert b"\x1b[?25l" not in terminal.written


LONG = ("--height", 384, "--width", 512, "--num-frames", 65)


@pytest.mark.parametrize(
    ("stage", "request_"),
    [
        ("transformer", (*LONG, "--steps", 1000)),
        ("image decoder", (*LONG, "--steps", 1)),
        ("writing v.webm", (*LONG, "--steps", 1, "--vae-memory", "150MB")),
    ],
)
def test_ctrl_c_ends_a_long_stage_that_moves(tiny_bundle, folder, stage, request_):
    """Each takes half a minute and more, if it is not ended."""
    output = stage.split()[-1] if "." in stage else "frames"
    with in_terminal(tiny_bundle("0.9.5"), folder, *request_, "--output", output) as terminal:
        first = terminal.wait_for(lambda text: percent(text, stage))
        terminal.wait_for(lambda text: percent(text, stage) not in (None, first))
        terminal.press(CTRL_C)
        assert terminal.end() == 130
    lines = [line for line in terminal.text.splitlines() if "━" not in line]
    assert lines[-1] == "interrupted" and "stopping…" in lines, terminal.text
    assert list(folder.iterdir()) == []


def percent(text, stage):
    """The whole job's percent while `stage` runs, None else."""
    running = [line for line in text.splitlines() if line.startswith(stage) and "━" in line]
    found = re.search(r"ltx-run +━.* (\d+) %", text)
    return found[1] if running and found else None


@pytest.mark.parametrize("output", ["v.mp4", "frames"])
@pytest.mark.parametrize(
    "stage",
    ["text encoder", "image encoder", "transformer", "image decoder", "writing"],
)
def test_an_interruption_in_any_stage_leaves_nothing(tiny_bundle, folder, monkeypatch, stage, output):
    reached = []

    class Interrupting(jobs.Job):
        def __call__(self, progress):
            if progress.stage.startswith(stage) and not reached:
                reached.append(progress.stage)
                signal.raise_signal(signal.SIGINT)
            super().__call__(progress)

    monkeypatch.setattr(jobs, "Job", Interrupting)
    Image.new("RGB", (96, 64), "teal").save(folder.parent / "i.png")
    extra = ("--image", folder.parent / "i.png", "--output", folder / output)
    result = CliRunner().invoke(main, asked(tiny_bundle("0.9.5"), *SMALL, *extra))
    assert (result.exit_code, len(reached)) == (130, 1), result.output
    assert result.stderr.splitlines()[-1] == "interrupted"
    assert list(folder.iterdir()) == []


def test_an_interruption_reaches_an_engine_at_work(tiny_bundle, folder, monkeypatch):
    """The callback ends the next call, which the main thread would have waited for."""
    ended = []

    class Interrupting(jobs.Job):
        def __call__(self, progress):
            super().__call__(progress)
            if progress.stage == "transformer" and progress.done == 1:
                with contextlib.suppress(KeyboardInterrupt):  # as compiled modules do
                    signal.raise_signal(signal.SIGINT)
                interrupts.settle()
                ended.append(True)

    monkeypatch.setattr(jobs, "Job", Interrupting)
    result = CliRunner().invoke(main, asked(tiny_bundle("0.9.5"), *SMALL, "--output", folder / "v.mp4"))
    assert (result.exit_code, ended) == (130, [True]), result.output


def events(result):
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_json_lines_have_every_stage_and_the_result(two_pass_bundle, folder):
    extra = (
        "--height",
        128,
        "--width",
        128,
        "--num-frames",
        9,
        "--two-passes",
        "--downscale-factor",
        0.5,
        "--output",
        folder / "v.gif",
    )
    result = CliRunner().invoke(main, asked(two_pass_bundle, *extra, "--json"))
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    told = events(result)
    progress = [event for event in told if event["event"] == "progress"]
    assert list(dict.fromkeys(event["stage"] for event in progress)) == [
        "text encoder",
        "transformer, pass 1/2",
        "latent upsampler",
        "transformer, pass 2/2",
        "image decoder",
        "writing v.gif",
    ]
    fractions = [event["fraction"] for event in progress]
    assert all(0 <= fraction < 1 for fraction in fractions)
    for stage in ("transformer, pass 1/2", "image decoder", "writing v.gif"):
        last = [event for event in progress if event["stage"] == stage][-1]
        assert last["done"] == last["total"] > 0
    assert told[-1].pop("seconds") > 0
    assert told[-1] == {"event": "result", "output": str(folder / "v.gif"), "frames": 9, "seed": 0}


def test_decoding_is_told_tile_by_tile(tiny_bundle, folder):
    extra = ("--height", 64, "--width", 640, "--num-frames", 9, "--steps", 1, "--vae-memory", "12MB")
    result = CliRunner().invoke(
        main, asked(tiny_bundle("0.9.5"), *extra, "--output", folder / "v.gif", "--json")
    )
    assert result.exit_code == 0, result.output
    decoding = [event for event in events(result) if event.get("stage") == "image decoder"]
    total = decoding[-1]["total"]
    assert total > 1 and decoding[-1]["done"] == total and decoding[-1]["unit"] == "tile"


@pytest.mark.parametrize(
    ("extra", "status", "field", "message"),
    [
        (("--height", -32), 2, "height", "--height -32: must be between 1 and 8192"),
        (("--steps", "many"), 2, "steps", "'many' is not a valid integer"),
        (("--no-such-option",), 2, None, "--no-such-option"),
        (("--image", "absent.png"), 2, "image", "no such file"),
    ],
)
def test_json_has_errors_as_well(tiny_bundle, folder, extra, status, field, message):
    arguments = (*extra, "--output", folder / "v.gif", "--json")
    result = CliRunner().invoke(main, asked(tiny_bundle("0.9.5"), *arguments))
    assert (result.exit_code, result.stderr) == (status, "")
    *_, last = events(result)
    assert (last["event"], last["exit_status"], last["field"]) == ("error", status, field)
    assert message in last["message"] and not last["message"].startswith("error")


def test_quiet_shows_the_result_alone(tiny_bundle, folder):
    arguments = (*SMALL, "--output", folder / "v.gif", "--quiet")
    result = CliRunner().invoke(main, asked(tiny_bundle("0.9.5"), *arguments))
    assert (result.exit_code, result.stderr) == (0, "")
    assert re.fullmatch(r".*v\.gif: 9 frames in [0-9.]+ s\n", result.stdout)


def test_without_a_terminal_stages_are_lines(tiny_bundle, folder, monkeypatch):
    result = CliRunner().invoke(main, asked(tiny_bundle("0.9.5"), *SMALL, "--output", folder / "v.gif"))
    assert result.exit_code == 0
    names = [re.split(r"[:(]|  ", line)[0] for line in result.stderr.splitlines()]
    assert names == ["text encoder", "transformer", "image decoder", "writing v.gif"]
    assert "\r" not in result.stderr and "\x1b" not in result.stderr
