"""Progress as lines and as JSON, times in words, and jobs that remember."""

from __future__ import annotations

import json

import click
import pytest
from click.testing import CliRunner

from ltxrt.engines.cli_base import ltxrt_command, say
from ltxrt.engines.errors import InputError, setting
from ltxrt.engines.progress import Progress, part
from ltxrt.engines.storage import times
from ltxrt.engines.terminal import job, mode_options, note, result, views, warn
from ltxrt.engines.terminal.estimate import Stage


@ltxrt_command("ltx-run")
@mode_options
@click.option("--fail", is_flag=True)
@click.option("--height", type=int)
def command(fail, height):
    with job() as report:
        report.expect({"loading": 1.0, "steps": 3.0})
        warn(f"warning: {setting('height')} is odd")
        note("a finding")
        report(Progress("loading"))
        for step in range(4):
            report(Progress("steps", step, 3, "step"))
        if fail:
            raise InputError(f"{setting('height')} 7: must be even")
    result("done", {"height": height})


def run(*arguments):
    return CliRunner().invoke(command, arguments)


def test_lines_say_when_a_stage_begins_and_are_few():
    done = run()
    lines = done.stderr.splitlines()
    assert lines[:2] == ["warning: --height is odd", "a finding"]
    assert [line.split("  ")[0] for line in lines[2:]] == ["loading", "steps: step 0/3"]
    assert done.stdout == "done\n"


def test_lines_come_every_few_seconds(monkeypatch):
    monkeypatch.setattr(views, "SECONDS_BETWEEN_LINES", 0.0)
    shown = [line.split("  ")[0] for line in run().stderr.splitlines()]
    assert shown[3:] == ["steps: step 0/3", "steps: step 1/3", "steps: step 2/3", "steps: step 3/3"]


def test_quiet_keeps_warnings_and_the_result():
    done = run("--quiet")
    assert (done.stdout, done.stderr) == ("done\n", "warning: --height is odd\n")


@pytest.mark.parametrize("quiet", [[], ["--quiet"]])
def test_json_is_all_in_lines_on_stdout(quiet):
    done = run("--json", *quiet)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.stderr == ""
    kinds = [event["event"] for event in events]
    assert kinds[:2] == ["warning", "note"] and set(kinds[2:-1]) == {"progress"} and kinds[-1] == "result"
    assert events[0]["message"] == "warning: --height is odd"
    first, last = events[2], events[-2]
    assert (first["stage"], first["done"], first["total"]) == ("loading", 0, None)
    assert (last["stage"], last["done"], last["total"], last["unit"]) == ("steps", 3, 3, "step")
    assert first["seconds_left"] >= last["seconds_left"] == 0


@pytest.mark.parametrize(
    ("arguments", "message", "field"),
    [
        (["--fail"], "--height 7: must be even", "height"),
        (["--height", "x"], "'x' is not a valid integer", "height"),
        (["--heigth", "3"], "--heigth", None),
    ],
)
def test_json_has_the_error_wherever_the_option_stands(arguments, message, field):
    for order in (["--json", *arguments], [*arguments, "--json"]):
        done = run(*order)
        last = json.loads(done.stdout.splitlines()[-1])
        assert (done.exit_code, done.stderr) == (2, "")
        assert (last["event"], last["field"], last["exit_status"]) == ("error", field, 2)
        assert message in last["message"]


def test_json_has_no_letters_that_break_a_line():
    @ltxrt_command("ltx-run")
    @mode_options
    def odd():
        result("", {"name": "a\nb\u2028 \udcff \x1b[2J"})

    (line,) = CliRunner().invoke(odd, ["--json"]).stdout.splitlines()
    assert line.isascii() and line.isprintable()
    assert json.loads(line)["name"] == "a\nb\u2028 \udcff \x1b[2J"


def test_a_part_of_a_job_has_stages_of_its_own_name():
    told = []
    part(told.append, "video 2/8")(Progress("transformer", 1, 2, "step"))
    assert told == [Progress("video 2/8 › transformer", 1, 2, "step")]


@pytest.mark.parametrize(
    ("stage", "amount", "pace"),
    [
        (Stage("a"), "", ""),
        (Stage("a", done=3, total=9, unit="step", first=(0, 1), last=(4, 3)), "step 3/9", "2.0 s/step"),
        (Stage("a", done=3, total=9, unit="step", first=(0, 1), last=(1, 3)), "step 3/9", "2.0 steps/s"),
        (Stage("a", done=0, total=1, unit="tile"), "", ""),
        (
            Stage("a", done=1.5e9, total=9.5e9, unit="byte", first=(0, 1e9), last=(2, 1.5e9)),
            "1.5 GB of 9.5 GB",
            "250 MB/s",
        ),
        (Stage("a", done=12_300, total=None, unit="byte"), "12.3 kB", ""),
    ],
)
def test_units_are_worded(stage, amount, pace):
    assert (views.amount(stage), views.pace(stage)) == (amount, pace)


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setattr(times, "place", lambda: tmp_path / "cache" / "times.json")
    return tmp_path / "cache" / "times.json"


def test_times_of_a_job_are_expected_of_the_next_one(file):
    @ltxrt_command("ltx-run")
    @click.option("--fail", is_flag=True)
    def timed(fail):
        with job() as report:
            report.expect({"work": 1e-6, "video 1/1 › more": 1e-6}, "a key")
            say(f"{report._estimate.left(report._estimate.began):.9f}")
            for stage in ("work", "video 1/1 › more"):
                report(Progress(stage, 0, 1))
                report(Progress(stage, 1, 1))
            if fail:
                raise InputError("no")

    assert CliRunner().invoke(timed, ["--fail"]).exit_code == 2
    assert times.measured("a key") == {}  # of a job that failed nothing is noted
    first = CliRunner().invoke(timed, [])
    ratios = times.measured("a key")
    assert set(ratios) == {"work", "more"} and times.measured("another") == {}
    second = float(CliRunner().invoke(timed, []).stdout)
    assert (float(first.stdout), second) == (2e-6, pytest.approx(1e-6 * sum(ratios.values()), abs=1e-9))


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{", '{"schema": 2, "measured": {}}', '{"schema": 1}',
        '{"schema": 1, "measured": {"k": 3}}',
        '{"schema": 1, "measured": {"k": {"s": -1}}}', '{"schema": 1, "measured": {"k": {"s": "x"}}}',
        '{"schema": 1, "measured": {"k": {"s": NaN}}}', '{"schema": 1, "measured": {"k": {"s": 1e999}}}',
        "[" * 100_000,
    ],
)  # fmt: skip
def test_a_file_of_times_that_cannot_be_read_counts_for_nothing(file, text):
    file.parent.mkdir()
    file.write_text(text)
    assert times.measured("k") == {}
    times.note("k", {"s": 2.0})
    assert times.measured("k") == {"s": 2.0}


def test_the_file_of_times_stays_small(file):
    for number in range(times.KEYS + 5):
        times.note(f"key {number}", {f"stage {n}": 1.0 + n for n in range(times.STAGES + 5)})
    assert file.stat().st_size < times.LIMIT
    assert times.measured("key 0") == {} and len(times.measured(f"key {times.KEYS + 4}")) == times.STAGES
    times.note("huge", {"s": 1e30, "none": 0.0})
    assert times.measured("huge") == {}


def test_times_are_mixed_with_those_before(file):
    times.note("k", {"s": 1.0, "gone": 7.0})
    times.note("k", {"s": 3.0})
    assert times.measured("k") == {"s": 2.0, "gone": 7.0}


def test_times_that_cannot_be_written_are_no_error(file):
    file.parent.touch()  # where the folder should be
    times.note("k", {"s": 1.0})
    assert times.measured("k") == {}


def test_a_link_in_place_of_the_file_is_not_followed(file, tmp_path):
    file.parent.mkdir()
    (tmp_path / "other").write_text('{"schema": 1, "measured": {"k": {"s": 2.0}}}')
    file.symlink_to(tmp_path / "other")
    assert times.measured("k") == {}
