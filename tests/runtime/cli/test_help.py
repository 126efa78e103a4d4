"""`ltx-run --help`, and what is said to names of options that there are not."""

import re
import shlex

import click
import pytest
from click.testing import CliRunner

from ltxrt.runtime.cli import help, main
from ltxrt.runtime.request.fields import GROUPS, SETTINGS
from ltxrt.runtime.request.foreign import FOREIGN


@pytest.fixture(scope="module", params=[80, 120])
def shown(request):
    output = CliRunner().invoke(main, ["--help"], terminal_width=request.param).output
    assert all(len(line) <= request.param for line in output.splitlines())
    return output


def test_every_option_has_its_place():
    """A new option that is no setting gets one in HEADINGS."""
    with click.Context(main) as context:
        options = main.get_params(context)
    placed = help.placed(options)
    assert [one.opts for one in placed[help.OTHERS]] == []
    assert sorted(map(id, [one for there in placed.values() for one in there])) == sorted(map(id, options))
    assert set(GROUPS) <= set(help.HEADINGS)


def test_the_help_shows_every_option_under_its_heading_and_nothing_is_broken(shown):
    headings = re.findall(r"(?m)^(\S.*):$", shown)
    assert headings[:3] == ["Examples", "Basics", "Images and video"] and headings[-1] == "Commands"
    for row in SETTINGS.values():
        flag = (row.option or f"--{row.name.replace('_', '-')}").split("/")[0]
        assert re.search(rf"(?m)^  {flag}\b", shown), flag
    known = {name for one in main.params for name in (*one.opts, *one.secondary_opts)} | {"--help"}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", shown)) <= known  # none ends at a line's end
    assert all(line.isprintable() for line in shown.splitlines())
    assert "\u2011" not in shown


def test_the_presets_are_named_once(shown):
    assert " ".join(shown.split()).count("is the preset's: --list-presets shows the bundle's.") == 1
    assert "default: the preset" not in " ".join(shown.split())
    assert re.search(r"Two passes:\n  --steps, --timesteps,[^:]* --second-pass sets the\s+second's", shown)


@pytest.mark.parametrize("line", help.EXAMPLES)
def test_the_examples_are_command_lines(line):
    words = shlex.split(line)
    assert words[0] == "ltx-run" and len(line) <= 78
    context = main.make_context("ltx-run", words[1:])
    assert context.params["prompt"] and context.params["output"]


def test_the_options_that_names_stand_for_are_there():
    known = {flag for one in main.params for flag in one.opts}
    assert set(FOREIGN.values()) <= known
    assert {f"--{name}" for name in FOREIGN} & known == set()


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("--num_frames", "--num-frames"),
        ("--neg-prompt", "--negative-prompt"),
        ("--negative_prompt", "--negative-prompt"),
        ("--cfg", "--guidance-scale"),
        ("--cfg_scale", "--guidance-scale"),
        ("--pipeline_config", "--config"),
        ("--output_path", "--output"),
        ("--conditioning_media_paths", "--condition"),
        ("--input_media_path", "--input-video"),
        ("--promt", "--prompt"),
        ("--Seed", "--seed"),
        ("--num_inference_step", "--steps"),  # near one of its other names
        ("--no-stochastik", "--no-stochastic"),
        ("--dtype", "--precision"),
        ("-p", "--prompt"),
        ("-o", "--output"),
        ("--force", "--overwrite"),
    ],
)
def test_a_near_miss_names_the_option(given, meant):
    result = CliRunner().invoke(main, ["--bundle", "b", given, "3"], prog_name="ltx-run")
    assert result.exit_code == 2
    assert (
        result.stderr == f"error: No such option '{given}'. Did you mean '{meant}'? (see 'ltx-run --help')\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--xyzzy"], "No such option '--xyzzy'."),
        (["docter"], "No such command 'docter'. Did you mean 'doctor'?"),
        (["a cat"], "No such command 'a cat'; values follow their options, as in --prompt TEXT."),
    ],
)
def test_what_is_like_nothing_is_refused_too(arguments, message):
    result = CliRunner().invoke(main, arguments, prog_name="ltx-run")
    assert (result.exit_code, result.stderr) == (2, f"error: {message} (see 'ltx-run --help')\n")
