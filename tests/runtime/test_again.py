"""`ltx-run --from VIDEO`: the same frames again, or with changes, by what the video says of itself."""

import json
import shutil

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from ltxrt.export.cli import main as export_main
from ltxrt.runtime.cli import main
from ltxrt.runtime.media import read_metadata, read_video
from ltxrt.runtime.media.write import VideoWriter
from ltxrt.runtime.request import record

SMALL = ["--height", 64, "--width", 96, "--num-frames", 9, "--steps", 2]
CASES = {
    "text": ["--seed", 9],
    "a drawn seed": ["--seed", -1],
    "cropped": ["--height", 50, "--width", 70, "--num-frames", 6],
    "image": ["--image", "i.png", "--image-strength", 0.8],
    "keyframes": ["--condition", "i.png", "--condition", "j.png@8:0.5", "--preparation", "plain"],
    "clip": ["--num-frames", 17, "--condition", "clip.mp4@8"],
    "video": ["--input-video", "clip.mp4", "--denoise-strength", 0.7],
    "noise of a GPU": ["--generator", "cuda", "--gpu", "H100"],
    "noise as diffusers draws it": ["--noise", "diffusers"],
    "noise in bf16": ["--noise-dtype", "bf16"],
    "noise of a file": ["--noise-file", "noise.npy"],
    "noise of conditions and decoder": ["--image", "i.png", "--image-noise-scale", 0.3,
                                        "--decode-noise-scale", 0.4, "--decode-timestep", 0.1],
    "diffusers": ["--compat", "diffusers"],
    "stochastic": ["--stochastic"],
    "guidance": ["--guidance-scale", "1,3", "--guidance-timesteps", "1,0.9", "--skip-block-list", "1;",
                 "--stg-scale", "1,0.5", "--cfg-star"],
    "tiles": ["--vae-memory", "12MiB", "--height", 128, "--width", 192],
}  # fmt: skip
TWO = [
    *("--two-passes", "--downscale-factor", 0.67, "--second-pass", "timesteps=0.7,0.4"),
    *("--tone-map", 0.6, "--image", "i.png"),
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name, shade in (("i", 9), ("j", 200)):
        Image.new("RGB", (96, 64), (shade, 80, 30)).save(tmp_path / f"{name}.png")
    with VideoWriter(tmp_path / "clip.mp4", 64, 96, 24, {}) as writer:
        for i in range(9):
            writer.write(np.full((64, 96, 3), 20 * i, np.uint8))
    noise = np.random.default_rng(0).standard_normal((1, 16, 2, 2, 3), np.float32)
    np.save(tmp_path / "noise.npy", noise)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments):
    done = CliRunner().invoke(main, [str(a) for a in arguments])
    assert done.exit_code == 0, done.output
    return done


def make(bundle, output, *extra):
    return run("--bundle", bundle, "--prompt", "fog", "--output", output, *SMALL, *extra)


def again(bundle, video, output, *extra):
    return run("--bundle", bundle, "--from", video, "--output", output, *extra)


def refused(bundle, *arguments):
    done = CliRunner().invoke(main, ["--bundle", str(bundle), *map(str, arguments)])
    assert done.exit_code == 2, done.output
    return done.output


def frames(path):
    with np.load(path) as archive:
        return archive["frames"]


def check_same(bundle, folder, extra):
    make(bundle, "a.npz", *extra)
    again(bundle, "a.npz", "b.npz")
    assert (folder / "a.npz").read_bytes() == (folder / "b.npz").read_bytes()
    assert frames("a.npz").std() > 0


@pytest.mark.parametrize("name", CASES)
def test_the_same_video_is_made_again(tiny_bundle, folder, name):
    check_same(tiny_bundle("0.9.5"), folder, CASES[name])


def test_two_passes_are_made_again(two_pass_bundle, folder):
    check_same(two_pass_bundle, folder, TWO)


@pytest.mark.parametrize(
    ("name", "extra"),
    [
        ("v.mp4", []),
        ("v.mp4", ["--codec", "h265", "--crf", 30, "--bit-depth", 10]),
        ("v.webm", ["--codec", "av1"]),
        ("v.mkv", ["--codec", "vp9", "--crf", 40]),
        ("v.gif", []),
        ("frames", ["--bit-depth", 16]),
        ("v.png", ["--num-frames", 1]),
    ],
)
def test_every_format_is_made_again_byte_by_byte(tiny_bundle, folder, name, extra):
    make(tiny_bundle("0.9.5"), name, *extra)
    again(tiny_bundle("0.9.5"), name, f"again-{name}")
    one, two = folder / name, folder / f"again-{name}"
    pairs = [(p, two / p.name) for p in one.iterdir()] if one.is_dir() else [(one, two)]
    assert len(pairs) in (1, 10)
    assert all(first.read_bytes() == second.read_bytes() for first, second in pairs)


def test_options_change_what_is_made_again(tiny_bundle, folder):
    bundle = tiny_bundle("0.9.5")
    make(bundle, "a.npz", "--seed", 3, "--image", "i.png")
    again(bundle, "a.npz", "b.npz", "--seed", 4, "--prompt", "rain")
    make(bundle, "c.npz", "--seed", 4, "--image", "i.png", "--prompt", "rain")
    np.testing.assert_array_equal(frames("b.npz"), frames("c.npz"))
    assert (frames("a.npz") != frames("b.npz")).any()
    again(bundle, "a.npz", "d.npz", "--image", "j.png")
    assert record.read("d.npz").sources[0].name == "j.png"
    again(bundle, "a.npz", "seed-{seed}.npz", "--seeds", "3-4")
    np.testing.assert_array_equal(frames("seed-3.npz"), frames("a.npz"))


def test_settings_of_a_file_come_between_the_video_s_and_the_options(tiny_bundle, folder):
    bundle = tiny_bundle("0.9.5")
    make(bundle, "a.npz", "--seed", 3)
    (folder / "c.yaml").write_text("seed: 4\nnum_frames: 17\n")
    again(bundle, "a.npz", "b.npz", "--config", "c.yaml", "--seed", 5)
    found = record.read("b.npz").completed
    assert (found["seed"], found["num_frames"], found["height"], found["prompt"]) == (5, 17, 64, "fog")


def test_files_are_looked_for_beside_the_video_here_and_where_told(tiny_bundle, folder, monkeypatch):
    bundle = tiny_bundle("0.9.5")
    make(bundle, "a.npz", "--image", "i.png")
    for name in ("elsewhere", "photos"):
        (folder / name).mkdir()
    shutil.move("a.npz", "elsewhere/a.npz")
    shutil.move("i.png", "photos/renamed.png")
    monkeypatch.chdir(folder / "elsewhere")
    message = refused(bundle, "--from", "a.npz", "--output", "b.npz")
    assert "a.npz was made from i.png (SHA-256 " in message
    assert "name its folder by --sources, or give it by --image" in message
    again(bundle, "a.npz", "b.npz", "--sources", folder / "photos")
    np.testing.assert_array_equal(frames("b.npz"), frames("a.npz"))


def test_no_metadata_leaves_nothing_to_make_it_again_from(tiny_bundle, folder):
    for name in ("v.mp4", "frames", "v.npz"):
        make(tiny_bundle("0.9.5"), name, "--no-metadata")
        assert not {record.KEY, "prompt", "seed", "encoding"} & read_metadata(name).keys()
        message = refused(tiny_bundle("0.9.5"), "--from", name, "--output", "b.mp4")
        assert f"{name}: does not say how it was made" in message


def test_a_bundle_with_other_presets_makes_the_same_video(tiny_bundle, folder):
    """As one that was exported again by a later version, with other defaults."""
    make(tiny_bundle("0.9.5"), "a.npz")
    shutil.copytree(tiny_bundle("0.9.5"), "bundle", symlinks=True)
    manifest = folder / "bundle" / "bundle.json"
    data = json.loads(manifest.read_text())
    preset = data["presets"]["default"]
    preset["passes"][0]["guidance_scale"] = [7.0]
    preset["max_tokens"], preset["negative_prompt"] = 64, "people"
    manifest.write_text(json.dumps(data))
    done = again("bundle", "a.npz", "b.npz")
    np.testing.assert_array_equal(frames("a.npz"), frames("b.npz"))
    assert "note: the bundle's presets are not those that a.npz was made with" in done.output
    assert "--guidance-scale" in done.output


def test_other_weights_are_said_to_be_others(tiny_bundle, folder):
    make(tiny_bundle("0.9.5"), "a.npz")
    text = (folder / "a.npz").read_bytes()
    graph = record.read("a.npz").weights["transformer"]
    archive = dict(np.load("a.npz"))
    archive["metadata"] = np.array(str(archive["metadata"]).replace(graph, "0" * 64))
    np.savez("c.npz", **archive)
    assert text != (folder / "c.npz").read_bytes()
    done = again(tiny_bundle("0.9.5"), "c.npz", "b.npz")
    assert "note: c.npz was made with other weights of transformer; this will be another video" in done.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--from", "absent.mp4"], "--from absent.mp4: no such file"),
        (["--from", "i.png"], "i.png: "),
        (["--from", "clip.mp4"], "--from clip.mp4: does not say how it was made"),
        (["--from", "noise.npy"], "a .npy file holds frames alone; .npz has the metadata too"),
        (["--from", "a.npz", "--sources", "absent"], "--sources absent: no such folder"),
        (["--from", "a.npz", "--precision", "transformer=int3"], "not in int3"),
        (["--from", "a.npz", "--steps", 0], "--steps 0: must be between 1 and 1000"),
        (["--sources", ".", "--prompt", "fog"], "--sources is where the files of a video are"),
        (["--prompt", "fog", "--codec", "mpeg2"], "--codec"),
        (["--prompt", "fog", "--crf", 64], "--crf 64: must be a whole number from 0, the best, to 51"),
        (["--prompt", "fog", "--bit-depth", 16], "--bit-depth 16: must be 8 or 10 for h264 in .mp4"),
        (["--prompt", "fog", "--bit-depth", 9], "--bit-depth"),
        (["--prompt", "fog", "--height", 63], "--height 63: must be an even number of 2 or more for h264"),
    ],
)
def test_mistakes_get_one_sentence(tiny_bundle, folder, options, message):
    if "a.npz" in options:
        make(tiny_bundle("0.9.5"), "a.npz")
    output = refused(tiny_bundle("0.9.5"), "--output", "v.mp4", *options)
    assert message in output
    assert len([line for line in output.splitlines() if "error" in line]) == 1
    assert not (folder / "v.mp4").exists()


def test_what_is_wrong_with_what_a_video_said_is_named_as_the_option_that_changes_it(tiny_bundle, folder):
    make(tiny_bundle("0.9.5"), "a.npz", "--height", 63)
    message = refused(tiny_bundle("0.9.5"), "--from", "a.npz", "--output", "v.mp4")
    assert "--height 63: must be an even number of 2 or more for h264; change it" in message
    message = refused(tiny_bundle("0.9.5"), "--from", "a.npz", "--output", "v.png")
    assert "--num-frames 9: v.png is one picture; give --num-frames 1, or a name without suffix" in message


def test_deeper_frames_are_the_same_picture(tiny_bundle, folder):
    make(tiny_bundle("0.9.5"), "a.npz")
    make(tiny_bundle("0.9.5"), "deep.npz", "--bit-depth", 16)
    eight, sixteen = frames("a.npz"), frames("deep.npz")
    assert sixteen.dtype == np.uint16
    assert np.abs(sixteen / 257 - eight).max() <= 0.5 + 1e-6
    assert len(np.unique(sixteen)) > 256
    make(tiny_bundle("0.9.5"), "v.mkv", "--bit-depth", 10, "--codec", "av1")
    assert read_video("v.mkv")[0].shape == eight.shape


def changed(video, output, **ran):
    """The archive, made in other circumstances."""
    archive = dict(np.load(video))
    metadata = json.loads(str(archive["metadata"]))
    document = json.loads(metadata[record.KEY])
    document["ran"] |= ran
    metadata[record.KEY] = json.dumps(document)
    np.savez(output, **{**archive, "metadata": np.array(json.dumps(metadata))})


@pytest.mark.parametrize(
    ("ran", "threads", "note"),
    [
        ({}, None, ""),
        ({"threads": 1}, 1, ""),
        ({"cores": 3}, 3, ""),
        ({"place": "CPU Abacus"}, None, "was made on CPU Abacus, and this is CPU "),
        ({"backend": "tensorrt_rtx"}, None, "was made on tensorrt_rtx, which does not run here: "),
        (
            {"backend": "abacus"},
            None,
            "was made on abacus, which does not run here: this version does not know",
        ),
    ],
)
def test_what_ran_it_runs_it_again_where_it_can(tiny_bundle, folder, ran, threads, note):
    """As many threads as then: their number decides the order of sums, and so the last bits."""
    make(tiny_bundle("0.9.5"), "a.npz")
    changed("a.npz", "b.npz", **ran)
    done = again(tiny_bundle("0.9.5"), "b.npz", "c.npz")
    assert record.read("c.npz").threads == threads
    assert note in done.output and ("was made on" in done.output) == bool(note)
    again(tiny_bundle("0.9.5"), "b.npz", "d.npz", "--threads", 2, "--backend", "cpu")
    assert record.read("d.npz").threads == 2


def test_options_of_other_programs_are_told_what_they_are_here(tiny_bundle, folder):
    for given, wanted in (("--bits", "--bit-depth"), ("--quality", "--crf"), ("--codecs", "--codec")):
        assert f"Did you mean '{wanted}'?" in refused(tiny_bundle("0.9.5"), given, 3)


def test_inspect_shows_what_a_video_says_and_how_it_is_made_again(tiny_bundle, folder):
    make(tiny_bundle("0.9.5"), "a.mp4", "--image", "i.png", "--seed", 3)
    done = CliRunner().invoke(export_main, ["inspect", "a.mp4"])
    assert done.exit_code == 0, done.output
    for line in (
        "  prompt: fog",
        "  num-frames: 9",
        "  seed: 3",
        "  from i.png (image)",
        "  again: ltx-run --bundle DIR --from a.mp4 --output NEW",
    ):
        assert line in done.output.splitlines()
    assert "vae_decoder fp32 on onnxruntime (CPU " in done.output
