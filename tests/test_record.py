"""`.ci/record.py`: what a command prints on its terminal is in the pictures; a failure is no recording."""

import importlib.util
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def recorder():
    spec = importlib.util.spec_from_file_location("record", ROOT / ".ci" / "record.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["record"] = module  # where dataclasses look for their annotations
    spec.loader.exec_module(module)
    yield module
    del sys.modules["record"]


def test_a_terminal_of_that_size_is_recorded(recorder, monkeypatch, tmp_path):
    monkeypatch.setattr(recorder, "COMMANDS", ("stty size",))
    recording = recorder.record(tmp_path)
    assert recording.screen.display[0].rstrip() == "$ stty size"
    assert recording.screen.display[1].rstrip() == f"{recorder.ROWS} {recorder.COLUMNS}"
    recording.write(tmp_path / "made.webp")
    with Image.open(tmp_path / "made.webp") as picture:
        assert picture.format == "WEBP" and picture.n_frames > 5
        picture.seek(picture.n_frames - 1)
        last = picture.convert("RGB")
        picture.seek(0)
        assert last.tobytes() != picture.convert("RGB").tobytes()


def test_a_command_that_fails_ends_the_recording(recorder, tmp_path):
    with pytest.raises(SystemExit, match=r"^false ended with 1$"):
        list(recorder.output(["false"], tmp_path))


def test_the_readme_s_picture_moves_and_is_small():
    file = ROOT / "docs" / "readme" / "terminal.webp"
    assert file.stat().st_size <= 2 << 20
    with Image.open(file) as picture:
        assert picture.n_frames > 20
