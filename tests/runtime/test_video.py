"""What a finished video is: saved as the command line saves it, printed, shown in notebooks."""

import base64
import dataclasses
import re

import pytest

from ltxrt.engines.errors import InputError
from ltxrt.runtime import Pipeline
from ltxrt.runtime import video as module
from ltxrt.runtime.cli import main as ltx_run
from ltxrt.runtime.media import read_metadata, read_video

SMALL = {"height": 64, "width": 96, "num_frames": 9, "steps": 2, "seed": 7}


@pytest.fixture(scope="module")
def video(tiny_bundle):
    return Pipeline(tiny_bundle("0.9.5"))("fog", **SMALL)


def test_a_saved_video_is_the_file_that_the_command_writes(video, tiny_bundle, run_command, tmp_path):
    settings = [f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items()]
    file = tmp_path / "command.mp4"
    # the backend by its name: which one the command takes by itself is not what this is about
    run_command(ltx_run, "--bundle", tiny_bundle("0.9.5"), "--backend", "onnxruntime", "--prompt", "fog",
                *settings, "--output", file)  # fmt: skip
    assert video.save(tmp_path / "saved.mp4") == tmp_path / "saved.mp4"
    assert (tmp_path / "saved.mp4").read_bytes() == file.read_bytes()


def test_metadata_are_left_out_where_that_is_asked_for(video, tmp_path):
    assert read_metadata(video.save(tmp_path / "told.mp4"))["prompt"] == "fog"
    assert "prompt" not in read_metadata(video.save(tmp_path / "untold.mp4", metadata=False))


def test_a_file_is_overwritten_unless_that_is_forbidden(video, tmp_path):
    file = tmp_path / "v.mp4"
    file.write_text("another")
    with pytest.raises(InputError, match=r"v\.mp4: exists; give a new name, or allow to overwrite it"):
        video.save(file, overwrite=False)
    assert file.read_text() == "another"
    frames, rate = read_video(video.save(str(file)))
    assert (frames.shape, rate) == (video.frames.shape, 25)


def test_quality_is_a_choice(video, tmp_path):
    sizes = [video.save(tmp_path / "v.mp4", crf=crf).stat().st_size for crf in (5, 45)]
    assert sizes[0] > 2 * sizes[1]
    with pytest.raises(InputError, match=r"^codec 'h266': must be one of h264, h265") as refused:
        video.save(tmp_path / "v.mp4", codec="h266")
    assert refused.value.field == "codec"


def test_it_is_printed_in_a_line(video):
    assert repr(video) == "<Video: 9 frames of 96×64 at 25/s, seed 7, 'fog'>"


def test_a_notebook_plays_it(video, tmp_path):
    shown = video._repr_mimebundle_()
    assert shown["text/plain"] == repr(video)
    player = r'<video [^>]* src="data:video/mp4;base64,([^"]+)"></video>'
    encoded = re.fullmatch(player, shown["text/html"])[1]
    (tmp_path / "v.mp4").write_bytes(base64.b64decode(encoded))
    frames, _ = read_video(tmp_path / "v.mp4")
    assert frames.shape == video.frames.shape


def test_a_prompt_cannot_write_into_the_page(video):
    request = dataclasses.replace(video.settings.request, prompt='"><script>alert(1)</script>')
    other = dataclasses.replace(video, settings=dataclasses.replace(video.settings, request=request))
    page = other._repr_mimebundle_()["text/html"]
    assert "<script" not in page and page.count(">") == 2


def test_a_video_that_is_too_large_for_a_page_is_only_named(video, monkeypatch):
    monkeypatch.setattr(module, "MOST_SHOWN", 100)
    assert list(video._repr_mimebundle_()) == ["text/plain"]
