"""Exports and builds in a real terminal: bars, and Ctrl-C in their stages, however fast the machine is."""

import re
import shutil
import signal
import sys
from pathlib import Path

import pytest
import traces
from terminals import Terminal

CTRL_C = b"\x03"
HELPERS = Path(__file__).parents[1] / "helpers"
EXPORT = "from ltxrt.export.start import main; main()"
# An export of a graph that was traced before, to a disk that takes 50 ms for each of thousands of pieces.
SLOW_DISK = """
import os, sys, time, types
from pathlib import Path
sys.path.insert(0, {helpers!r})
import traces
from ltxrt.export.graph import weights
from ltxrt.export.start import main
weights.PIECE = weights.UNFLUSHED = 256
fsync = os.fsync
os.fsync = lambda file: (time.sleep(0.05), fsync(file))
traces.keep(types.SimpleNamespace(setattr=setattr), Path({kept!r}))
main()
"""


def in_terminal(program, folder, *arguments):
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return Terminal(command, folder, XDG_CACHE_HOME=str(folder / "cache"))


def drawn(terminal):
    """All that was ever on the screen; a quick machine draws over it before a test has looked."""
    return re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b"", terminal.written).decode()


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("stage", ["loading torch", "tracing", "writing weights"])
def test_ctrl_c_in_a_stage_of_an_export_leaves_nothing(
    kept_traces, shared_folder, tiny_checkpoint, tmp_path, stage
):
    kept = traces.folder(shared_folder)
    slow = SLOW_DISK.format(helpers=str(HELPERS), kept=str(kept))
    program = slow if stage == "writing weights" else EXPORT
    checkpoint = tiny_checkpoint("0.9.5") / "model.safetensors"
    arguments = ("onnx", checkpoint, "--component", "transformer", "--output", tmp_path / "bundle")
    with in_terminal(program, tmp_path, *arguments) as terminal:
        first = terminal.wait_for(lambda text: re.search(rf"{stage}  .*━.*", text))
        if stage == "writing weights":
            assert terminal.wait_for(lambda text: re.search(r"writing .* kB of \d+ kB", text))
            terminal.wait_for(lambda text: (now := re.search(r"writing.*", text)) and now[0] != first[0])
        terminal.press(CTRL_C)
        assert terminal.end() == 130
    assert terminal.text.splitlines()[-1] == "interrupted" and "stopping…" in terminal.text
    assert "━" not in terminal.text
    assert files(tmp_path / "bundle") == []


@pytest.mark.parametrize(
    ("number", "status", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_a_build_ends_at_once_and_leaves_nothing_half_built(tiny_bundle, tmp_path, number, status, word):
    """While it compiles, which is one long call without a word from the package; all builds take a minute."""
    bundle = shutil.copytree(tiny_bundle("0.9.5"), tmp_path / "bundle")
    before = files(bundle)
    targets = ("--target", "sm80,sm86,sm89,sm120,sm121", "--profile", "64x96x9")
    arguments = ("build-engines", "--bundle", bundle, "--backend", "rtx", *targets)
    with in_terminal(EXPORT, tmp_path, *arguments) as terminal:
        terminal.wait_for(lambda text: "text_encoder fp32 for sm80" in text and "━" in text)
        terminal.wait_for(lambda _text: list(bundle.rglob(".text_encoder.*.engine")))
        terminal.press(CTRL_C) if number == signal.SIGINT else terminal.process.send_signal(number)
        assert terminal.end() == status
    assert terminal.text.splitlines()[-1] == word
    left = set(files(bundle)) - {*before, ".verified.json"}
    assert [name for name in left if Path(name).name.startswith(".")] == []
    engines = {name.removesuffix(".engine") for name in left if name.endswith(".engine")}
    assert engines == {name.removesuffix(".json") for name in left if name.endswith(".json")}


def test_a_build_draws_its_bars_and_leaves_its_result(tiny_bundle, tmp_path):
    bundle = shutil.copytree(tiny_bundle("0.9.5"), tmp_path / "bundle")
    options = ("--target", "sm89", "--profile", "64x96x9", "--component", "text_encoder")
    arguments = ("build-engines", "--bundle", bundle, "--backend", "rtx", *options)
    with in_terminal(EXPORT, tmp_path, *arguments) as terminal:
        assert terminal.end() == 0
    assert re.search("build-engines +[^\n]*━", drawn(terminal))
    stage, engine = terminal.text.replace("\n ", "").splitlines()[:2]
    assert re.fullmatch(r"text_encoder fp32 for sm89  [0-9.]+ s", stage)
    assert engine.startswith("engines/tensorrt_rtx/sm89/text_encoder.fp32.")
