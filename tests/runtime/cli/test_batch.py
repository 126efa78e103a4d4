"""`ltx-run` making several videos: their seeds, prompts and names, one load of the engines, and failures."""

import json
import re

import numpy as np
import pytest
from click.testing import CliRunner

from ltxrt.engines import backend
from ltxrt.engines.errors import EngineError
from ltxrt.runtime import engine_pool
from ltxrt.runtime.cli import main, outputs, run
from ltxrt.runtime.media import read_metadata, read_video
from ltxrt.runtime.request.options import seeds

SMALL = ["--height", "64", "--width", "96", "--num-frames", "9", "--steps", "2"]


@pytest.fixture
def make(tiny_bundle, tmp_path):
    """Runs the command; outputs are named from a folder of their own."""

    def run(*arguments, output="{prompt}-{seed}.gif", small=SMALL):
        (tmp_path / "out").mkdir(exist_ok=True)
        given = ["--bundle", tiny_bundle("0.9.5"), "--output", tmp_path / "out" / output, *small, *arguments]
        return CliRunner().invoke(main, [str(one) for one in given])

    return run


def made(tmp_path):
    return sorted(path.name for path in (tmp_path / "out").iterdir())


@pytest.fixture
def loads(monkeypatch):
    """The components that were loaded, in order."""
    found, load = [], backend.load_engine

    def noted(bundle, component, **options):
        found.append(component)
        return load(bundle, component, **options)

    monkeypatch.setattr(engine_pool, "load_engine", noted)
    return found


def test_seeds_take_one_load_and_give_the_frames_of_single_runs(make, tmp_path, loads):
    result = make("--prompt", "Fog, over a lake!", "--seeds", "3,5-6")
    assert result.exit_code == 0, result.output
    assert made(tmp_path) == [f"fog-over-a-lake-{seed}.gif" for seed in (3, 5, 6)]
    assert loads == ["text_encoder", "transformer", "vae_decoder"]
    assert "video 2/3 › transformer" in result.stderr
    alone = make("--prompt", "Fog, over a lake!", "--seed", "5", output="alone.gif")
    assert alone.exit_code == 0, alone.output
    frames = [read_video(tmp_path / "out" / name)[0] for name in ("fog-over-a-lake-5.gif", "alone.gif")]
    np.testing.assert_array_equal(*frames)
    told = [read_metadata(tmp_path / "out" / name) for name in ("fog-over-a-lake-5.gif", "alone.gif")]
    assert told[0] == told[1]


def test_passes_of_few_and_of_many_steps_give_the_frames_of_single_runs_too(two_pass_bundle, tmp_path):
    """From 25 calls on the CPU's engines are loaded in another way, which rounds otherwise."""
    asked = ["--bundle", two_pass_bundle, "--prompt", "fog", *SMALL[:-1], 25, "--overwrite"]
    asked += ["--two-passes", "--downscale-factor", 0.67, "--second-pass", "timesteps=0.7,0.4"]
    frames = []
    for some in (["--seeds", "1,2"], ["--seed", "2"]):
        given = [*asked, *some, "--output", tmp_path / "{seed}.gif"]
        result = CliRunner().invoke(main, [str(one) for one in given])
        assert result.exit_code == 0, result.output
        frames.append(read_video(tmp_path / "2.gif")[0])
    np.testing.assert_array_equal(*frames)


def test_a_file_of_prompts_makes_a_video_for_each_line(make, tmp_path, loads):
    lines = ["fog", "# not this one", json.dumps({"prompt": "rain", "seed": 9, "height": 32}), "wind"]
    (tmp_path / "p.txt").write_text("\n".join(lines))
    result = make("--prompts", tmp_path / "p.txt", output="{n}-{prompt}-{seed}.gif")
    assert result.exit_code == 0, result.output
    assert made(tmp_path) == ["1-fog-0.gif", "2-rain-9.gif", "3-wind-0.gif"]
    shapes = [read_video(tmp_path / "out" / name)[0].shape[1] for name in made(tmp_path)]
    assert shapes == [64, 32, 64]
    assert loads == ["text_encoder", "transformer", "vae_decoder"]


def test_all_prompts_with_all_seeds(make, tmp_path):
    (tmp_path / "p.txt").write_text("fog\nrain\n")
    result = make("--prompts", tmp_path / "p.txt", "--seeds", "1,2", "--steps", "1")
    assert result.exit_code == 0, result.output
    assert made(tmp_path) == ["fog-1.gif", "fog-2.gif", "rain-1.gif", "rain-2.gif"]


def test_a_drawn_seed_is_said_and_makes_the_same_video_again(make, tmp_path):
    result = make("--prompt", "fog", "--seed", "-1", output="a.gif")
    assert result.exit_code == 0, result.output
    seed = re.search(r"note: the seed drawn is (\d+); --seed \1 makes this video again", result.stderr)[1]
    assert read_metadata(tmp_path / "out" / "a.gif")["seed"] == seed
    assert make("--prompt", "fog", "--seed", seed, output="b.gif").exit_code == 0
    assert (tmp_path / "out" / "a.gif").read_bytes() == (tmp_path / "out" / "b.gif").read_bytes()


def test_one_that_fails_is_reported_and_the_others_are_made(make, tmp_path, monkeypatch):
    (tmp_path / "p.txt").write_text("fog\nrain\nwind\n")
    make_one = run.Maker.make

    def fail(self, one, output, label):
        if one.request.prompt == "rain":
            raise EngineError("transformer: the GPU fell asleep")
        make_one(self, one, output, label)

    monkeypatch.setattr(run.Maker, "make", fail)
    result = make("--prompts", tmp_path / "p.txt", "--steps", "1")
    assert result.exit_code == 1
    assert made(tmp_path) == ["fog-0.gif", "wind-0.gif"]
    assert "p.txt, line 2: transformer: the GPU fell asleep" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("error: 1 of 3 videos failed")


def test_an_interruption_ends_them_all(make, tmp_path, monkeypatch):
    begun = []

    def interrupt(self, one, output, label):
        begun.append(label)
        raise KeyboardInterrupt

    monkeypatch.setattr(run.Maker, "make", interrupt)
    result = make("--prompt", "fog", "--seeds", "1-3", "--steps", "1")
    assert (result.exit_code, made(tmp_path)) == (130, [])
    assert begun == ["video 1/3"]


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--seeds", "1-"], "--seeds '1-': must be numbers and ranges, as in 1-8 or 1,5,9"),
        (["--seeds", "8-1"], "--seeds '8-1': must begin with the lower one, as in 1-8"),
        (["--seeds", "1-99999"], "--seeds '1-99999': are more than 10000 videos; use several"),
        (["--seeds", "1-9999,20000-20001"], "--seeds '1-9999,20000-20001': are more than 10000 videos"),
        (["--seeds", "1,2,1-3"], "--seeds '1,2,1-3': 1 is in it twice; give it once"),
        (["--seeds", "9" * 20], "--seeds 99999999999999999999: must be between"),
        (["--seeds", "1,2", "--seed", "3"], "--seed and --seeds exclude each other; give one of them"),
        (["--prompts", "{lines}"], "--prompt and --prompts exclude each other; give one of them"),
        (["--overwrite", "--skip-existing"], "--overwrite and --skip-existing exclude each other; give one"),
        (["--seed", "-2"], "--seed -2: must be between -1 and 18446744073709551615"),
    ],
)
def test_wrong_seeds_and_prompts_get_one_line(make, tmp_path, extra, message):
    (tmp_path / "p.txt").write_text("fog")
    result = make("--prompt", "fog", *(one.format(lines=tmp_path / "p.txt") for one in extra))
    assert result.exit_code == 2 and result.stderr.startswith(f"error: {message}"), result.output
    assert result.stderr.count("\n") == 1 and made(tmp_path) == []


@pytest.mark.parametrize(
    ("line", "extra", "message"),
    [
        ('{"prompt": "fog", "height": 9000}', [], "p.txt, line 2: height 9000: must be between"),
        ('{"prompt": "fog", "image": "absent.png"}', [], "p.txt, line 2: image absent.png: no such file"),
        ('{"seed": 3}', [], "p.txt, line 2: the prompt is missing; describe the video"),
        ('{"prompt": "fog", "seed": 1}', ["--seeds", "1-2"], "p.txt, line 2: seed is given there and by"),
    ],
)  # fmt: skip
def test_a_wrong_line_is_refused_before_any_work(make, tmp_path, loads, line, extra, message):
    (tmp_path / "p.txt").write_text(f"rain\n{line}\n")
    result = make("--prompts", tmp_path / "p.txt", *extra, output="{n}.gif")
    assert result.exit_code == 2 and message in result.stderr, result.output
    assert result.stderr.startswith("error: --prompts ")
    assert (made(tmp_path), loads) == ([], [])


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("v.gif", "v.gif: is one name for 3 videos; put {seed}, {n} or {prompt} in it, as in v-{seed}.gif"),
        ("{prompt}.gif", "is one name for 3 videos"),
    ],
)
def test_several_videos_need_several_names(make, tmp_path, output, message):
    result = make("--prompt", "fog", "--seeds", "1-3", output=output)
    assert result.exit_code == 2 and message in result.stderr, result.output


def test_two_prompts_with_one_name_are_refused(make, tmp_path):
    (tmp_path / "p.txt").write_text("fog\nrain\nfog!\n")
    result = make("--prompts", tmp_path / "p.txt", output="{prompt}.gif")
    assert result.exit_code == 2 and "fog.gif to two videos; put {n} in it" in result.stderr, result.output


def test_no_video_replaces_what_another_is_made_from(make, tmp_path):
    assert make("--prompt", "fog", "--steps", "1", output="1.gif").exit_code == 0
    before = (tmp_path / "out" / "1.gif").read_bytes()
    line = {"prompt": "rain", "seed": 2, "input_video": str(tmp_path / "out" / "1.gif")}
    (tmp_path / "p.txt").write_text('{"prompt": "fog", "seed": 1}\n' + json.dumps(line))
    result = make("--prompts", tmp_path / "p.txt", "--overwrite", output="{seed}.gif")
    assert result.exit_code == 2 and "the video is made from this file" in result.stderr, result.output
    assert (tmp_path / "out" / "1.gif").read_bytes() == before and made(tmp_path) == ["1.gif"]


def test_an_existing_output_is_refused_unless_it_is_to_be_overwritten(make, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "2.gif").write_bytes(b"older")
    asked = ["--prompt", "fog", "--seeds", "1,2", "--steps", "1"]
    result = make(*asked, output="{seed}.gif")
    assert result.exit_code == 2 and made(tmp_path) == ["2.gif"]
    assert result.stderr.endswith("2.gif: exists; give another name, or give --overwrite\n")
    assert (tmp_path / "out" / "2.gif").read_bytes() == b"older"
    assert make(*asked, "--overwrite", output="{seed}.gif").exit_code == 0
    assert read_video(tmp_path / "out" / "2.gif")[0].shape == (9, 64, 96, 3)


def test_a_folder_of_frames_is_an_output_too(make, tmp_path):
    asked = ["--prompt", "fog", "--steps", "1"]
    assert make(*asked, output="frames").exit_code == 0
    refused = make(*asked, output="frames")
    assert refused.exit_code == 2
    assert refused.stderr.endswith("frames: exists; give another name, or give --overwrite\n")
    assert make(*asked, "--num-frames", "17", "--overwrite", output="frames").exit_code == 0
    assert len([*(tmp_path / "out" / "frames").iterdir()]) == 18 and made(tmp_path) == ["frames"]


def test_an_interrupted_command_goes_on_with_what_is_missing(make, tmp_path):
    (tmp_path / "out" / "2").mkdir(parents=True)
    (tmp_path / "out" / "2" / "00000.png").write_bytes(b"frame")
    asked = ["--prompt", "fog", "--steps", "1", "--skip-existing"]
    result = make(*asked, "--seeds", "1,2", output="{seed}")
    assert result.exit_code == 0 and made(tmp_path) == ["1", "2"], result.output
    assert "note: 1 of 2 outputs exist and are left as they are" in result.stderr
    again = make(*asked, "--seeds", "1,2", output="{seed}")
    assert (again.exit_code, again.stdout) == (0, "")
    assert "note: 2 of 2 outputs exist" in again.stderr
    assert (tmp_path / "out" / "2" / "00000.png").read_bytes() == b"frame"


@pytest.mark.parametrize("begin", ["{sed}", "{}", "{seed:d}", "{seed"])
def test_other_braces_in_a_name_stay_and_are_mentioned(make, tmp_path, begin):
    result = make("--prompt", "fog", "--steps", "1", "--num-frames", "1", output=f"{begin}{{n}}.gif")
    assert result.exit_code == 0 and made(tmp_path) == [f"{begin}1.gif"]
    assert f"note: {begin}" in result.stderr
    assert " stays as it is in --output; {seed}, {n} and {prompt} are filled in" in result.stderr
    assert "1.gif: 1 frame in " in result.stdout


@pytest.mark.parametrize(
    ("prompt", "slug"),
    [
        ("Waves break, on a ROCKY shore.", "waves-break-on-a-rocky-shore"),
        ("../../etc/passwd", "etc-passwd"),
        ("  --help  ", "help"),
        ("con", "con-"),
        ("…", "video"),
        ("Füchse im Schnee_3", "füchse-im-schnee-3"),
        ("\x1b[31m\u202e\0red", "31m-red"),
        ("{seed}", "seed"),
        ("x" * 500, "x" * 60),
        ("a word " * 50, "a-word-" * 8 + "a"),
    ],
)
def test_a_prompt_in_a_name_is_short_and_safe(prompt, slug):
    assert outputs.slug(prompt) == slug


def test_a_prompt_of_long_characters_stays_within_a_file_name():
    for letter in ("霧", "𝔣", "\u0bf5", "a\u0301"):
        assert len(outputs.slug(letter * 300).encode()) <= 150


@pytest.mark.parametrize(("text", "found"), [("1-3", (1, 2, 3)), ("5", (5,)), (" 4, 2-3", (4, 2, 3))])
def test_seeds_are_in_the_order_given(text, found):
    assert seeds(text) == found


def test_too_many_videos_are_refused(make, tmp_path):
    (tmp_path / "p.txt").write_text("fog\n" * 2000)
    result = make("--prompts", tmp_path / "p.txt", "--seeds", "1-6")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: 2000 prompts with 6 seeds are more than 10000 videos")
