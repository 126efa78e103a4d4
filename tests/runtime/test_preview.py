"""Previews: colours of latents, and the file that is kept up to date while a video is sampled."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from ltxrt.engines.bundle import read_bundle
from ltxrt.engines.errors import BundleError, InputError
from ltxrt.engines.families.preview import Preview
from ltxrt.runtime import Pipeline, Request, preview
from ltxrt.runtime.cli import main

SIZE = {"height": 64, "width": 96, "num_frames": 17}
OPTIONS = ("--height", 64, "--width", 96, "--num-frames", 17, "--steps", 3, "--prompt", "a cat")
MAP = Preview(((0.1, 0.0), (0.0, 0.1), (0.1, 0.1)), (0.5, 0.5, 0.5), 0.9)


def run(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


def test_colours_are_the_maps():
    latents = np.zeros((1, 2, 3, 4, 5), np.float32)
    latents[0, 0, 0] = 2
    latents[0, 1, 1] = -100
    latents[0, :, 2, 0, 0] = np.nan
    found = preview.mapped(MAP, latents)
    assert found.shape == (3, 4, 5, 3) and found.dtype == np.uint8
    assert found[0, 0, 0].tolist() == [178, 128, 178]
    assert found[1, 0, 0].tolist() == [128, 0, 0]
    assert found[2, 0, 0].tolist() == [128, 128, 128]  # what is no number shows nothing


@pytest.mark.parametrize("shape", [(1, 3, 1, 2, 2), (2, 2, 1, 2, 2), (2, 1, 2, 2)])
def test_other_latents_are_refused(shape):
    with pytest.raises(InputError, match=r"a preview is of \(1, 2, f, h, w\)"):
        preview.mapped(MAP, np.zeros(shape, np.float32))


@pytest.mark.parametrize("frames", [1, 3, 20])
def test_an_animation_has_each_picture_and_a_strip_all_of_them(tmp_path, frames):
    pictures = np.arange(frames * 4 * 6 * 3).reshape(frames, 4, 6, 3).astype(np.uint8)
    preview.write(tmp_path / "p.webp", pictures, 3.125)
    preview.write(tmp_path / "p.png", pictures, 3.125)
    with Image.open(tmp_path / "p.webp") as animation:
        assert getattr(animation, "n_frames", 1) == frames and animation.size == (384, 256)
    with Image.open(tmp_path / "p.png") as strip:
        columns, rows = min(frames, 8), -(-frames // 8)
        assert strip.size == (158 * columns - 2, 106 * rows - 2)  # 156x104 each, and two pixels between
    assert sorted(p.name for p in tmp_path.iterdir()) == ["p.png", "p.webp"]


def test_the_file_is_written_once_a_second_and_at_the_end(tmp_path):
    now, written = [0.0], []
    strip = preview.Strip(tmp_path / "p.png", 3.0, lambda: now[0])
    for step, second in enumerate([0.0, 0.4, 0.9, 1.1, 1.2]):
        now[0] = second
        strip.show(np.full((1, 2, 2, 3), step, np.uint8), last=step == 4)
        with Image.open(tmp_path / "p.png") as image:
            written.append(image.getpixel((0, 0))[0])
    assert written == [0, 0, 0, 3, 4]


def test_the_run_shows_its_clean_latents_and_its_last_are_the_results(tiny_bundle):
    events, request = [], Request("a cat", steps=3, **SIZE)
    with Pipeline(tiny_bundle("0.9.5")) as pipeline:
        latents = pipeline.latents(request, events.append)
        shown = [pipeline.preview(event.clean) for event in events if event.clean is not None]
        steps = [event for event in events if event.step is not None]
        assert len(shown) == len(steps) == 3
        assert shown[0].shape == (3, 2, 3, 3)
        # The last step ends at sigma 0: what it predicts without noise is what it returns.
        assert np.allclose(steps[-1].clean, latents, atol=1e-5)
        assert not np.allclose(steps[0].clean, steps[0].step.latents["video"].max())


def test_an_image_is_in_the_preview_from_the_first_step_on(tiny_bundle, tmp_path):
    Image.new("RGB", (96, 64), "red").save(tmp_path / "red.png")
    events, request = [], Request("a cat", steps=2, image=tmp_path / "red.png", **SIZE)
    with Pipeline(tiny_bundle("0.9.5")) as pipeline:
        latents = pipeline.latents(request, events.append)
        first = next(event.clean for event in events if event.clean is not None)
    assert first.shape == latents.shape
    # Noise is added to the image's latents before each step, 0.15 at most.
    assert np.abs(first[:, :, 0] - latents[:, :, 0]).mean() < 0.2


@pytest.mark.parametrize("name", ["p.webp", "p.png"])
def test_the_command_writes_a_preview(tiny_bundle, tmp_path, name):
    options = ("--bundle", tiny_bundle("0.9.5"), *OPTIONS)
    done = run(*options, "--output", tmp_path / "a.mp4", "--preview", tmp_path / name)
    assert done.exit_code == 0, done.output
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["a.mp4", name])
    with Image.open(tmp_path / name) as image:
        assert image.n_frames == (3 if name == "p.webp" else 1)


@pytest.mark.parametrize("name", ["p.webp", "p.png"])
def test_an_earlier_preview_is_replaced_and_another_picture_where_it_is_asked_for(tmp_path, name):
    Image.new("RGB", (96, 64)).save(tmp_path / name)
    with pytest.raises(InputError, match="exists and is no preview"):
        preview.check_path(tmp_path / name)
    preview.check_path(tmp_path / name, overwrite=True)
    preview.write(tmp_path / name, np.zeros((2, 4, 4, 3), np.uint8), 3.0)
    preview.check_path(tmp_path / name)
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_both_passes_are_shown_in_their_sizes(two_pass_bundle):
    events = []
    request = Request(
        "a cat", steps=2, two_passes=True, downscale_factor=0.5, height=128, width=128, num_frames=9
    )
    with Pipeline(two_pass_bundle) as pipeline:
        latents = pipeline.latents(request, events.append)
        shown = [pipeline.preview(event.clean).shape for event in events if event.clean is not None]
    assert set(shown) == {(2, 2, 2, 3), (2, 4, 4, 3)} and latents.shape[2:] == shown[-1][:3]


@pytest.fixture
def old_bundle(tiny_bundle, tmp_path):
    """A bundle that was exported before there were previews."""
    folder = tmp_path / "old"
    shutil.copytree(tiny_bundle("0.9.5"), folder)
    manifest = json.loads((folder / "bundle.json").read_text())
    assert len(manifest.pop("preview")["weights"][0]) > 0
    (folder / "bundle.json").write_text(json.dumps(manifest))
    return folder


def test_a_bundle_of_before_is_read_and_has_no_preview(old_bundle):
    bundle = read_bundle(old_bundle)
    assert bundle.preview is None
    with pytest.raises(BundleError, match="has no colours for a preview; export its decoder again"):
        preview.colours(bundle, np.zeros((1, 16, 1, 2, 2), np.float32))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("weights", [[1.0]], "weights: must have 3 to 3 entries"),
        ("weights", [[1.0], [1.0], [1.0, 2.0]], "must have as many factors"),
        ("weights", [[1e9], [1.0], [1.0]], "must be between"),
        ("offset", [0.5], "offset: must have 3 to 3 entries"),
        ("r2", 2, "r2: must be between"),
        ("r2", "a", "r2: expected"),
    ],
)
def test_a_damaged_map_is_refused(old_bundle, field, value, message):
    manifest = json.loads((old_bundle / "bundle.json").read_text())
    manifest["preview"] = {**dataclasses.asdict(MAP), field: value}
    (old_bundle / "bundle.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=message):
        read_bundle(old_bundle)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("p.jpg", "p.jpg: the suffix must be .webp or .png"),
        ("none/p.png", "its folder is not there; make it first"),
        ("folder.png", "is not a regular file; give another name"),
        ("given.png", "the video is made from this file"),
        ("photo.png", "exists and is no preview; give another name, or give --overwrite"),
        ("text.webp", "exists and is no preview"),
        ("/proc/p.webp", "cannot write to /proc"),
    ],
)
def test_a_path_that_cannot_be_written_is_one_line_that_names_the_option(
    tiny_bundle, tmp_path, name, message
):
    (tmp_path / "folder.png").mkdir()
    for file in ("given.png", "photo.png"):
        Image.new("RGB", (96, 64)).save(tmp_path / file)
    (tmp_path / "text.webp").write_text("hello")
    options = ("--bundle", tiny_bundle("0.9.5"), *OPTIONS, "--image", tmp_path / "given.png")
    done = run(*options, "--output", tmp_path / "a.mp4", "--preview", tmp_path / name)
    assert done.exit_code == 2
    line = done.output.splitlines()[-1]
    assert line.startswith("error: --preview") and message in line, line
    assert not (tmp_path / "a.mp4").exists()


def test_the_preview_is_not_the_output(tiny_bundle, tmp_path):
    path = tmp_path / "a.webp"
    done = run("--bundle", tiny_bundle("0.9.5"), *OPTIONS, "--output", path, "--preview", path)
    assert done.exit_code == 2


def test_an_old_bundle_says_how_to_get_previews(old_bundle, tmp_path):
    done = run(
        "--bundle", old_bundle, *OPTIONS, "--output", tmp_path / "a.mp4", "--preview", tmp_path / "p.png"
    )
    assert done.exit_code == 2 and "export its decoder again with ltx-export onnx" in done.output
