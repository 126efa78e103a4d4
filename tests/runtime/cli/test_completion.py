"""What shells complete: as they ask, through the environment, with the scripts that the command prints."""

import shutil
import subprocess

import pytest
from click.testing import CliRunner

from ltxrt.runtime.cli import main

SHELLS = ("bash", "zsh", "fish")


def ask(shell, words, incomplete):
    """The completions of `incomplete` behind `words`, as a shell is given them."""
    words = ["ltx-run", *map(str, words)]
    env = {"_LTX_RUN_COMPLETE": f"{shell}_complete", "COMP_CWORD": str(len(words))}
    env["COMP_WORDS"] = " ".join([*words, incomplete]) if shell != "fish" else " ".join(words)
    if shell == "fish":
        env["COMP_CWORD"] = incomplete
    output = CliRunner().invoke(main, prog_name="ltx-run", env=env).output
    if shell == "zsh":  # three lines each: type, value, help
        return output.splitlines()[1::3]
    return [line.split(",", 1)[1].split("\t")[0] for line in output.splitlines() if "," in line]


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("words", "incomplete", "found"),
    [
        (["--backend"], "t", ["trt", "tensorrt_rtx", "tensorrt", "tensorrt-rtx"]),
        (["--compat"], "diff", ["diffusers", "diffusers-condition"]),
        (["--noise-dtype"], "", ["f32", "bf16"]),
        (["--stg-mode"], "attention_v", ["attention_values"]),
        (["--preparation"], "o", ["official"]),
        (["--gpu"], "H", ["H100", "H200"]),
        (["--second-pass"], "ste", ["steps="]),
        (["--preset"], "", []),  # which a bundle would say
        ([], "--overw", ["--overwrite"]),
        ([], "doc", ["doctor"]),
    ],
)
def test_choices_are_completed(shell, words, incomplete, found):
    completed = ask(shell, words, incomplete)
    assert completed == found if incomplete != "H" else set(completed) >= {"H100"}


@pytest.mark.parametrize("shell", SHELLS)
def test_what_depends_on_the_bundle_is_read_from_it(shell, tiny_bundle, tmp_path):
    at = ["--bundle", tiny_bundle("0.9.5")]
    assert ask(shell, [*at, "--preset"], "def") == ["default"]
    assert ask(shell, [*at, "--precision"], "f") == ["fp32"]
    assert ask(shell, [*at, "--precision"], "trans") == ["transformer=fp32"]
    assert ask(shell, [*at, "--precision"], "vae_encoder=fp32,tr") == ["vae_encoder=fp32,transformer=fp32"]
    assert ask(shell, ["--bundle", tmp_path, "--preset"], "") == []  # no bundle: nothing, and no error


@pytest.mark.parametrize(
    "option", ["--bundle", "--output", "--image", "--condition", "--config", "--prompts"]
)
def test_files_and_folders_are_left_to_the_shell(option):
    env = {"_LTX_RUN_COMPLETE": "bash_complete", "COMP_WORDS": f"ltx-run {option} a", "COMP_CWORD": "2"}
    output = CliRunner().invoke(main, prog_name="ltx-run", env=env).output
    assert output == ("dir,a\n" if option == "--bundle" else "file,a\n")


@pytest.mark.parametrize("shell", SHELLS)
def test_the_scripts_are_those_of_the_pages(shell):
    result = CliRunner().invoke(main, prog_name="ltx-run", env={"_LTX_RUN_COMPLETE": f"{shell}_source"})
    assert result.exit_code == 0 and f"_LTX_RUN_COMPLETE={shell}_complete" in result.output
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=result.output, text=True, check=True)
