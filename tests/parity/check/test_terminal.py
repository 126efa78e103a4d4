"""`ltx-parity check` in a real terminal: its bars, and Ctrl-C while torch computes."""

import re
import sys

import pytest
from terminals import Terminal

PROGRAM = "from ltxrt.parity.start import main; main()"


@pytest.mark.slow
def test_ctrl_c_ends_a_check(tiny_bundle, tiny_checkpoint, tmp_path):
    """Its runs on torch would take minutes at this size."""
    checkpoint = tiny_checkpoint("0.9.5")
    given = ("--text-encoder", checkpoint / "t5", "--model-version", "0.9.5", "--size", "512x768x121")
    command = [sys.executable, "-c", PROGRAM, "check", "--bundle", tiny_bundle("0.9.5"), "--checkpoint",
               checkpoint / "model.safetensors", *given, "--output", tmp_path / "report"]  # fmt: skip
    with Terminal(command, tmp_path, XDG_CACHE_HOME=str(tmp_path)) as terminal:
        terminal.wait_for(lambda text: re.search(r"loading torch  .*━", text))
        terminal.wait_for(lambda text: re.search(r"making inputs on torch  .*━.* step \d+/12", text))
        terminal.press(b"\x03")
        assert terminal.end() == 130
    assert terminal.text.splitlines()[-1] == "interrupted" and "━" not in terminal.text
    assert list((tmp_path / "report").iterdir()) == []
    assert not [path for path in tiny_bundle("0.9.5").rglob(".*") if path.name != ".verified.json"]
