from __future__ import annotations

import contextlib
import errno
import logging
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from ltxrt.engines.cli_base import LtxrtGroup, check_interrupted, ltxrt_command, name_settings, say
from ltxrt.engines.errors import EngineError, InputError, MissingPackageError, setting
from ltxrt.engines.storage.files import atomic_write


def run(failure=None, args=(), env=None):
    @ltxrt_command("ltx-run")
    @click.option("--steps", type=int)
    @click.option("--rate", type=float)
    @click.option("--level", type=click.IntRange(0, 5))
    def command(steps, rate, level):
        """Do it."""
        if failure is not None:
            raise failure
        click.echo(f"steps {steps}")

    return CliRunner().invoke(command, list(args), env=env, prog_name="ltx-run")


def test_success():
    result = run(args=["--steps", "3"])
    assert (result.exit_code, result.stdout, result.stderr) == (0, "steps 3\n", "")


@pytest.mark.parametrize(
    "failure, code, line",
    [
        (InputError("--steps 0: must be\n 1 or more"), 2, "error: --steps 0: must be 1 or more"),
        (EngineError("transformer: failed"), 1, "error: transformer: failed"),
        (
            MissingPackageError("onnxruntime", "cpu"),
            1,
            "error: onnxruntime is not installed; install it with: pip install 'ltxrt[cpu]'",
        ),
        (KeyboardInterrupt(), 130, "interrupted"),
        (MemoryError(), 1, "error: out of memory"),
        (
            OSError(errno.ENOSPC, "No space left on device", "out.mp4"),
            1,
            "error: No space left on device: out.mp4",
        ),
        (
            KeyError("x"),
            1,
            "internal error: KeyError: 'x'; run with --debug (or LTXRT_DEBUG=1) for the traceback",
        ),
        (click.ClickException("plain"), 1, "error: plain"),
    ],
)
def test_a_failure_is_one_line_and_a_status(failure, code, line):
    result = run(failure)
    assert (result.exit_code, result.stdout, result.stderr) == (code, "", line + "\n")


@pytest.mark.parametrize(
    ("message", "line"),
    [
        (f"{setting('steps')} 0: must be 1 or more", "--steps 0: must be 1 or more"),
        (f"{setting('conditions')} a.png: too large", "--condition a.png: too large"),
        (f"{setting('noise')} x: no such file", "--noise-file x: no such file"),
        (f"{setting('second_pass.skip_final')} 9", "--second-pass skip-final 9"),
        (f"give {setting('two_passes')}, or {setting('sound')} 0", "give --two-passes, or sound 0"),
        (f"{setting('height')} 33", "a.yaml: height 33"),
    ],
)
def test_settings_are_named_by_the_options_of_the_command(message, line):
    @ltxrt_command("ltx-run")
    @click.option("--steps")
    @click.option("--condition", "conditions", multiple=True)
    @click.option("--noise", "layout")
    @click.option("--noise-file", "noise")
    @click.option("--second-pass")
    @click.option("--two-passes/--one-pass")
    @click.option("--height")
    def command(**_options):
        name_settings({"height": "a.yaml: height"})
        say(f"note: {message}")
        raise InputError(message)

    result = CliRunner().invoke(command, [])
    assert (result.stdout, result.stderr) == (f"note: {line}\n", f"error: {line}\n")


@pytest.mark.parametrize(
    "args, message",
    [
        (["--stepz", "3"], "No such option"),
        (["--steps", "three"], "'three' is not a valid integer"),
        (["extra"], "unexpected extra argument"),
        (["--steps", "9" * 400], "'" + "9" * 80 + "'… is not a valid integer of up to 20 digits"),
        (["--steps", "9" * 5000], "is not a valid integer of up to 20 digits"),
        (["--steps", "३"], "'३' is not a valid integer"),
        (["--steps", "1_0"], "'1_0' is not a valid integer"),
        (["--level", "३"], "'३' is not a valid integer"),
        (["--level", "9"], "9 is not in the range 0<=x<=5"),
        (["--rate", "३.५"], "'३.५' is not a valid float"),
        (["--rate", "x\x1b[31m"], r"'x\x1b[31m' is not a valid float"),
        (["--\x1b[31m"], r"--\x1b[31m"),
    ],
)
def test_usage_errors_are_one_line_with_status_2(args, message):
    result = run(args=args)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ") and message in result.stderr
    assert result.stderr.endswith("(see 'ltx-run --help')\n") and result.stderr.count("\n") == 1


def test_a_message_is_printable_and_short():
    result = run(InputError("no \x1b]0;title\x07\u202e \udcff " + "x" * 20_000_000 + " end"))
    assert result.stderr.startswith(r"error: no \x1b]0;title\x07\u202e \xff xxx")
    assert result.stderr.endswith("x end\n") and len(result.stderr) < 2100
    debug = run(KeyError("\x1b[31m"), ["--debug"])
    assert "\x1b" not in debug.stderr and debug.stderr.count("\n") > 5


def test_names_are_said_in_printable_characters(capsys):
    say("a\x1b[2J\nb\r\udcff")
    say("c\t", err=True)
    assert capsys.readouterr() == ("a\\x1b[2J\nb\\r\\xff\n", "c\\t\n")


@pytest.mark.parametrize(
    "args, env", [(["--debug"], None), ([], {"LTXRT_DEBUG": "1"}), (["--debug"], {"LTXRT_DEBUG": "0"})]
)
def test_debug_shows_the_traceback(args, env):
    result = run(KeyError("x"), args, env)
    assert "Traceback" in result.stderr and "raise failure" in result.stderr
    assert result.stderr.endswith("\ninternal error: KeyError: 'x'\n")
    assert result.exit_code == 1


def test_an_interruption_that_others_made_another_error_of_is_one():
    """As compiled modules do while they are imported; it was told as a missing package."""
    failure, load = MissingPackageError("onnxruntime", "cpu"), ImportError("initialization failed")
    failure.__cause__, load.__context__ = load, KeyboardInterrupt()
    result = run(failure)
    assert (result.exit_code, result.stderr) == (130, "interrupted\n")
    failure.__cause__ = failure  # no error of ours, and no endless loop
    assert run(failure).exit_code == 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interruption_that_somebody_swallowed_is_raised_again(number, code):
    reached = []

    @ltxrt_command("ltx-run")
    @click.option("--fail", is_flag=True)
    def command(fail):
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(number)
        reached.append("after")
        if fail:
            raise ValueError("half imported")
        check_interrupted()
        reached.append("on and on")

    for arguments in ([], ["--fail"]):
        assert CliRunner().invoke(command, arguments).exit_code == code
    assert reached == ["after", "after"]
    check_interrupted()  # nothing is left for the next command
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("name", ["ltx-run", "ltx-export", "ltx-parity"])
@pytest.mark.parametrize("where", ["click", "ltxrt.engines.errors"])
def test_an_interruption_while_a_command_is_loaded_is_one_line(name, where):
    code = (
        "import sys\n"
        "class Interrupts:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {where!r}:\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupts())\n"
        f"from ltxrt.{name.removeprefix('ltx-').replace('run', 'runtime')}.start import main\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


def test_the_installed_commands_are_those_that_handle_it():
    pyproject = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert pyproject["project"]["scripts"] == {
        "ltx-run": "ltxrt.runtime.start:main",
        "ltx-export": "ltxrt.export.start:main",
        "ltx-parity": "ltxrt.parity.start:main",
    }


def test_a_closed_pipe_is_quiet():
    result = run(BrokenPipeError(errno.EPIPE, "Broken pipe"))
    assert (result.exit_code, result.stderr) == (1, "")


def test_help_and_exit_are_not_failures():
    assert "Do it." in run(args=["--help"]).stdout
    assert "--debug" in run(args=["--help"]).stdout
    assert run(click.exceptions.Exit(3)).exit_code == 3


@pytest.fixture
def group():
    @ltxrt_command("ltx-export", cls=LtxrtGroup)
    def commands():
        """Many things."""

    @commands.command()
    @click.argument("path")
    def onnx(path):
        raise ValueError(path)

    return commands


def invoke(command, *args):
    return CliRunner().invoke(command, args, prog_name="ltx-export")


def test_subcommands_fail_in_one_line(group):
    result = invoke(group, "onnx", "model")
    assert result.exit_code == 1
    assert result.stderr.startswith("internal error: ValueError: model;") and result.stderr.count("\n") == 1
    result = invoke(group, "onnx")
    assert (result.exit_code, result.stderr) == (
        2,
        "error: Missing argument 'PATH'. (see 'ltx-export onnx --help')\n",
    )
    result = invoke(group, "onyx")
    assert result.exit_code == 2 and result.stderr.count("\n") == 1 and "No such command" in result.stderr


@pytest.mark.parametrize(
    ("args", "hint"),
    [
        (["onyx"], " Did you mean 'onnx'?"),
        (["EXPORT"], " Did you mean 'onnx'?"),
        (["list"], " Did you mean 'engines list'?"),
        (["zzz"], ""),
        (["onnx", "m", "--presicion", "fp16"], " Did you mean '--precision'?"),
        (["onnx", "m", "--precision", "FP-16"], " Did you mean 'fp16'?"),
        (["onnx", "m", "--precision", "int8"], ""),
        (["onnx", "m", "--precision", "bflo"], " Did you mean 'bfloat16'?"),
    ],
)
def test_a_near_miss_names_what_was_meant(args, hint):
    @ltxrt_command("ltx-export", cls=LtxrtGroup, meant={"export": "onnx", "list": "engines list"})
    def commands():
        """Many things."""

    @commands.command()
    @click.argument("path")
    @click.option("--precision", type=click.Choice(["fp16", "bfloat16"]))
    def onnx(path, precision):
        """Not reached."""

    result = invoke(commands, *args)
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.partition(" (see ")[0].endswith(f".{hint}")


@pytest.mark.parametrize("args", [("--debug", "onnx", "model"), ("onnx", "model", "--debug")])
def test_debug_stands_before_or_after_the_subcommand(group, args):
    result = invoke(group, *args)
    assert result.stderr.count("Traceback") == 1
    assert result.stderr.endswith("\ninternal error: ValueError: model\n")


def test_no_subcommand_shows_the_help(group):
    result = invoke(group)
    assert result.exit_code == 2 and "Many things." in result.output


def test_the_module_needs_click_alone():
    check = (
        "import sys, ltxrt.engines.cli_base\n"
        "ours = {m for m in sys.modules if m.startswith('ltxrt.')}\n"
        "print(sorted(ours), 'numpy' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True).stdout
    loaded = ["cli_base", "errors", "parsing", "parsing.near", "parsing.text", "public", "terminal"]
    loaded += ["terminal.interrupts", "terminal.mode"]
    names = ["ltxrt.engines", *(f"ltxrt.engines.{name}" for name in loaded)]
    assert out.strip() == f"{names} False"


def test_sigterm_ends_a_command_as_an_interruption_does(tmp_path):
    """Its files are cleaned up; a second SIGTERM, which often follows, does not cut that short."""

    @ltxrt_command("ltx-run")
    def command():
        with atomic_write(tmp_path / "video.mp4") as temporary:
            temporary.write_bytes(b"half")
            try:
                signal.raise_signal(signal.SIGTERM)
            finally:
                signal.raise_signal(signal.SIGTERM)

    result = CliRunner().invoke(command, [], prog_name="ltx-run")
    assert (result.exit_code, result.stderr) == (143, "stopping…\nterminated\n")
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_who_handles_sigterm_already_goes_on_doing_so():
    got = []

    @ltxrt_command("ltx-run")
    def command():
        signal.raise_signal(signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, lambda *_: got.append("mine"))
    try:
        assert CliRunner().invoke(command, []).exit_code == 0
    finally:
        signal.signal(signal.SIGTERM, before)
    assert got == ["mine"]


def test_what_the_library_logs_is_shown_once():
    @ltxrt_command("ltx-run")
    def command():
        logging.getLogger("ltxrt.engines.storage.integrity").info("checking %s", "weights")

    for _ in range(2):
        assert CliRunner().invoke(command, []).stderr == "checking weights\n"
