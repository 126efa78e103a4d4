import os
import resource
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from ltxrt.engines.errors import InputError, LtxrtError
from ltxrt.runtime.media import read_metadata, read_video
from ltxrt.runtime.media.formats.encoding import CODECS
from ltxrt.runtime.media.write import VideoWriter, as_fraction, check_output, to_uint8

METADATA = {"prompt": "a wave — “big”\nand blue", "seed": "7", "bundle": "demo"}


def moving(count=11, height=64, width=96):
    """Smooth frames that move, so that order and colours can be told after lossy coding."""
    t, y, x = np.mgrid[0:count, 0:height, 0:width].astype(np.float32)
    channels = [128 + 90 * np.sin(x / 20 + t / 3), 128 + 90 * np.cos(y / 17 - t / 4), 60 + 10 * t]
    return np.stack(channels, axis=-1).astype(np.uint8)


def write(path, frames, frame_rate=25.0):
    with VideoWriter(path, frames.shape[1], frames.shape[2], frame_rate, METADATA) as writer:
        for frame in frames:
            writer.write(frame)


def psnr(one, two):
    return -10 * np.log10(np.mean((one.astype(float) - two.astype(float)) ** 2) / 255**2)


@pytest.mark.parametrize(("suffix", "floor"), [(".mp4", 38), (".webm", 36), (".gif", 30)])
@pytest.mark.parametrize("frame_rate", [25.0, 23.976, 30.0])
def test_round_trip(tmp_path, suffix, floor, frame_rate):
    frames, path = moving(), tmp_path / f"video{suffix}"
    write(path, frames, frame_rate)
    back, rate = read_video(path)
    assert back.shape == frames.shape
    assert psnr(back, frames) > floor
    if suffix != ".gif":  # whose clock ticks in hundredths of a second
        assert rate == as_fraction(frame_rate)
        with av.open(str(path)) as container:
            assert container.streams.video[0].codec_context.pix_fmt == "yuv420p"
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
@pytest.mark.parametrize("frame_rate", [24.0, 23.976])
def test_every_frame_is_on_time_beyond_the_encoders_look_ahead(tmp_path, suffix, frame_rate):
    frames, path = moving(count=97), tmp_path / f"video{suffix}"
    write(path, frames, frame_rate)
    with av.open(str(path)) as container:
        times = [float(frame.time) for frame in container.decode(video=0)]
    tick = 0.001  # of WebM
    np.testing.assert_allclose(times, np.arange(97) / float(as_fraction(frame_rate)), atol=tick)
    back, rate = read_video(path)
    assert rate == as_fraction(frame_rate)
    assert min(psnr(one, two) for one, two in zip(back, frames)) > 34


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
@pytest.mark.parametrize("colour", [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)])
def test_colours_are_those_of_bt709(tmp_path, suffix, colour):
    path = tmp_path / f"v{suffix}"
    write(path, np.tile(np.array(colour, np.uint8), (3, 64, 96, 1)))
    with av.open(str(path)) as container:
        luma = next(container.decode(video=0)).to_ndarray()[32, 48]
    assert luma == pytest.approx(16 + 219 * np.dot([0.2126, 0.7152, 0.0722], colour) / 255, abs=2)
    np.testing.assert_allclose(read_video(path)[0][0, 32, 48], colour, atol=4)


def test_mp4_is_h264_and_says_its_colours(tmp_path):
    write(tmp_path / "v.mp4", moving())
    with av.open(str(tmp_path / "v.mp4")) as container:
        context = container.streams.video[0].codec_context
        assert context.name == "h264"
        assert (context.colorspace, context.color_range) == (1, 1)


def test_gif_keeps_time_as_a_whole(tmp_path):
    write(tmp_path / "v.gif", moving(count=24), 24.0)
    with Image.open(tmp_path / "v.gif") as image:
        total = 0
        for index in range(image.n_frames):
            image.seek(index)
            total += image.info["duration"]
    assert total == 1000


@pytest.mark.parametrize("name", ["v.mp4", "v.webm", "v.gif", "v.mkv", "v.npz", "frames"])
def test_metadata_survives(tmp_path, name):
    write(tmp_path / name, moving(3))
    found = read_metadata(tmp_path / name)
    assert {key: found[key] for key in METADATA} == METADATA


def test_folder_holds_exact_frames(tmp_path):
    frames = moving(3)
    write(tmp_path / "frames", frames, 29.97)
    names = sorted(p.name for p in (tmp_path / "frames").iterdir())
    assert names == ["00000.png", "00001.png", "00002.png", "metadata.json"]
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "frames" / "00002.png")), frames[2])
    assert read_metadata(tmp_path / "frames")["frame_rate"] == "30000/1001"


@pytest.mark.parametrize("name", ["v.mp4", "v.webm", "v.gif", "v.mkv", "v.npz", "frames.npy"])
def test_equal_frames_make_equal_files(tmp_path, name):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / name, moving())
    assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


@pytest.mark.parametrize("name", ["v.mp4", "v.webm"])
def test_what_was_in_memory_before_does_not_change_the_file(tmp_path, name):
    """Slightly noisy frames, among arrays that come and go: x264's macroblock tree fails this."""
    rng, contents = np.random.default_rng(0), set()
    frames = (moving(9, 96, 160) + rng.normal(0, 10, (9, 96, 160, 3))).clip(0, 255).astype(np.uint8)
    litter = []
    for turn in range(16):
        sizes = rng.integers(1000, 3_000_000, rng.integers(0, 7))
        litter = [rng.integers(0, 255, size, np.uint8) for size in sizes]
        write(tmp_path / name, frames.copy() if turn % 2 else frames)
        contents.add((tmp_path / name).read_bytes())
    assert len(contents) == 1 and len(litter) < 7


@pytest.mark.parametrize("name", ["v.mp4", "v.webm"])
def test_the_number_of_cores_does_not_change_the_file(tmp_path, name):
    cores, contents = os.sched_getaffinity(0), []
    frames = moving(33, 256, 384)
    frames += np.random.default_rng(0).integers(0, 9, frames.shape, np.uint8)
    try:
        for count in (len(cores), 1):
            os.sched_setaffinity(0, sorted(cores)[:count])
            write(tmp_path / name, frames)
            contents.append((tmp_path / name).read_bytes())
    finally:
        os.sched_setaffinity(0, cores)
    assert contents[0] == contents[1]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("name", ["v.mp4", "v.webm", "v.gif", "v.mkv", "v.npz", "frames"])
def test_an_interrupted_video_leaves_nothing(tmp_path, name, error):
    with pytest.raises(error), VideoWriter(tmp_path / name, 64, 96, 25, {}) as writer:
        for frame in moving(97):  # beyond the look-ahead, before which the encoders make no file
            writer.write(frame)
        assert name in ("v.gif", "v.npz") or writer.temporary.exists()
        raise error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["v.mp4", "v.webm", "v.gif", "v.mkv", "v.npz", "frames"])
def test_an_interruption_at_the_last_moment_leaves_nothing(tmp_path, monkeypatch, name):
    def interrupt(writer):
        assert writer.temporary.exists()
        raise KeyboardInterrupt

    monkeypatch.setattr(VideoWriter, "_publish", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / name, moving(3))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["v.mp4", "v.webm", "v.gif", "v.mkv", "v.npz", "frames"])
@pytest.mark.parametrize("limit", [0, 40_000])
def test_a_full_disk_leaves_the_older_video(tmp_path, name, limit):
    """As a limit of the process on the size of files, which fails as a full disk does."""
    frames = np.random.default_rng(0).integers(0, 255, (9, 128, 192, 3), np.uint8)
    if name != "frames":
        (tmp_path / name).write_bytes(b"older")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises((OSError, LtxrtError)) as caught:
            write(tmp_path / name, frames)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "File too large" in str(caught.value)
    assert [p.read_bytes() for p in tmp_path.iterdir()] == ([b"older"] if name != "frames" else [])


def test_an_interrupted_video_leaves_the_older_one(tmp_path):
    path = tmp_path / "v.mp4"
    path.write_bytes(b"older")
    with pytest.raises(ValueError), VideoWriter(path, 64, 96, 25, {}) as writer:
        writer.write(moving()[0])
        raise ValueError
    assert path.read_bytes() == b"older"
    write(path, moving())
    assert len(read_video(path)[0]) == 11


def test_outputs_that_cannot_be_are_found_before_the_work(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    (tmp_path / "dir.mp4").mkdir()
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe.mp4")
    cases = {
        "v.avi": "suffix must be .mp4, .webm, .mkv, .gif, .png",
        "absent/v.mp4": "does not exist",
        "full": "exists; give a new name",
        "file": "exists; give a new name",
        "dir.mp4": "is a folder",
        "pipe.mp4": "is a device or a pipe",
        f"{'n' * 250}.mp4": "cannot write to .*File name too long",
    }
    for name, message in cases.items():
        with pytest.raises(InputError, match=message):
            check_output(tmp_path / name)
    with pytest.raises(InputError, match="cannot write to /proc"):
        check_output(Path("/proc/video.mp4"))
    check_output(tmp_path / "v.MP4")
    check_output(tmp_path / "new")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["dir.mp4", "file", "full", "pipe.mp4"]


def test_outputs_that_a_finished_video_cannot_be_renamed_to(tmp_path, monkeypatch):
    """Each of them was found when the frames were all made."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    (tmp_path / "dangling").symlink_to("absent")
    (tmp_path / "loop").symlink_to("loop")
    monkeypatch.chdir(tmp_path / "empty")
    cases = {
        tmp_path / "link": "is a link; give the folder it points to, empty",
        tmp_path / "dangling": "is a link; give the folder it points to, absent",
        tmp_path / "loop": "is a link",
        tmp_path / ("n" * 300): "File name too long",
        Path("/proc"): "exists; give a new name",
        Path(): "is not a file name",
        Path(".."): "is not a file name",
        Path("/"): "is not a file name",
    }
    for path, message in cases.items():
        with pytest.raises(InputError, match=message):
            check_output(path)
    monkeypatch.setattr(os.path, "ismount", lambda path: path.name == "empty")
    with pytest.raises(InputError, match="is where a disk is mounted; give a new name in it"):
        check_output(tmp_path / "empty")


@pytest.mark.parametrize("name", ["v.mp4", "frames"])
def test_what_belongs_to_another_user_in_a_shared_folder_is_not_replaced(tmp_path, monkeypatch, name):
    """As in /tmp, where anyone may make files and only the owner may rename over one."""
    (tmp_path / "v.mp4").touch()
    (tmp_path / "frames").mkdir()
    tmp_path.chmod(0o1777)
    check_output(tmp_path / name)
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    with pytest.raises(InputError, match="belongs to another user, who alone may replace it"):
        check_output(tmp_path / name)
    check_output(tmp_path / "new")


def test_an_empty_folder_and_a_link_to_a_file_are_replaced(tmp_path):
    (tmp_path / "frames").mkdir()
    (tmp_path / "other.mp4").write_bytes(b"older")
    (tmp_path / "v.mp4").symlink_to("other.mp4")
    (tmp_path / "w.mp4").symlink_to("absent.mp4")
    for name in ("frames", "v.mp4", "w.mp4"):
        write(tmp_path / name, moving(3))
    assert len(list((tmp_path / "frames").iterdir())) == 4
    assert (tmp_path / "other.mp4").read_bytes() == b"older"
    assert len(read_video(tmp_path / "v.mp4")[0]) == len(read_video(tmp_path / "w.mp4")[0]) == 3


@pytest.mark.parametrize("name", ["t2v-0.9.0", "fog.8-distilled", "take.2", "a.b c"])
def test_a_dot_in_a_folder_s_name_is_no_suffix(tmp_path, name):
    write(tmp_path / name, moving(2))
    assert sorted(p.name for p in (tmp_path / name).iterdir()) == ["00000.png", "00001.png", "metadata.json"]
    check_output(tmp_path / name)  # frames of a video: they are replaced, as a file is


@pytest.mark.parametrize("suffix", ["avi", "mov", "mpeg", "MKA", "m4v", "mp44", "tiff", "3gp"])
def test_a_suffix_of_another_format_is_a_mistake(tmp_path, suffix):
    with pytest.raises(InputError, match=f"v-0.9.{suffix}: the suffix must be .mp4, .* or a name"):
        check_output(tmp_path / f"v-0.9.{suffix}")


@pytest.mark.parametrize("name", ["v.mp4", "v.webm", "v.gif", "v.mkv", "v.npz", "frames"])
def test_no_frames_make_no_video(tmp_path, name):
    with (
        pytest.raises(InputError, match="no frames were written"),
        VideoWriter(tmp_path / name, 64, 96, 25, {}),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["v.mp4", "v.gif"])
@pytest.mark.parametrize("frame_rate", [0, -1, float("nan"), float("inf")])
def test_frame_rates_that_cannot_be_are_refused(tmp_path, name, frame_rate):
    with pytest.raises(InputError, match=r"frame rate .* above 0"):
        VideoWriter(tmp_path / name, 64, 96, frame_rate, {})


@pytest.mark.parametrize("name", ["12:30.mp4", "file:v.webm", "%03d.mp4", "a b é.mp4"])
def test_names_that_ffmpeg_reads_otherwise(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    write(Path(name), moving(3))
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert len(read_video(name)[0]) == 3
    assert read_metadata(name)["seed"] == "7"


def test_a_missing_encoder_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(CODECS, "h264", replace(CODECS["h264"], encoder="libabsent"))
    with pytest.raises(LtxrtError, match=r"cannot encode \.mp4 with libabsent .*reinstall the package av"):
        write(tmp_path / "v.mp4", moving(3))
    assert list(tmp_path.iterdir()) == []


def test_frames_of_another_size_are_refused(tmp_path):
    with (
        pytest.raises(InputError, match=r"frame uint8 \(32, 96, 3\): must be uint8 \(64, 96, 3\)"),
        VideoWriter(tmp_path / "v.mp4", 64, 96, 25, {}) as writer,
    ):
        writer.write(moving(1, 32)[0])


def test_to_uint8_clips_and_rounds():
    pixels = np.array([-2, -1, 0, 0.0049, 1, 3], np.float32).reshape(1, 6, 1, 1).repeat(3, axis=0)
    assert to_uint8(pixels)[:, 0, 0, 0].tolist() == [0, 0, 128, 128, 255, 255]
    assert to_uint8(np.zeros((3, 9, 32, 64), np.float32)).shape == (9, 32, 64, 3)


@pytest.mark.parametrize(
    ("decimal", "exact"),
    [
        (25, Fraction(25)),
        (30.0, Fraction(30)),
        (12.5, Fraction(25, 2)),
        (23.976, Fraction(24000, 1001)),
        (29.97, Fraction(30000, 1001)),
        (59.94, Fraction(60000, 1001)),
    ],
)
def test_frame_rates_are_exact(decimal, exact):
    assert as_fraction(decimal) == exact


def test_what_is_no_video_is_refused(tmp_path):
    (tmp_path / "v.mp4").write_text("no video")
    Image.new("P", (8, 8)).save(tmp_path / "foreign.gif", comment=b"made elsewhere")
    (tmp_path / "v.gif").write_text("no video")
    (tmp_path / "folder").mkdir()
    messages = {
        "v.mp4": "neither an image nor a video",
        "absent.mp4": "no such file",
        "folder": "is a folder",
    }
    for name, message in messages.items():
        with pytest.raises(InputError, match=message):
            read_video(tmp_path / name)
    messages = {
        "v.mp4": "v.mp4: neither an image nor a video",
        "absent.mp4": "absent.mp4: no such file",
        "folder": "folder.metadata.json: no such file",
        "v.gif": "v.gif: does not decode",
        "foreign.gif": "foreign.gif: has no readable metadata",
    }
    for name, message in messages.items():
        with pytest.raises(InputError, match=message):
            read_metadata(tmp_path / name)


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_what_a_killed_run_left_is_swept_by_the_next_one_of_the_same_name(tmp_path, suffix):
    (tmp_path / f".clip.00c0ffee{suffix}").write_bytes(b"half")
    (tmp_path / f".other.00c0ffee{suffix}").write_bytes(b"half")
    with VideoWriter(tmp_path / f"clip{suffix}", 32, 32, 8.0, {}) as writer:
        writer.write(np.zeros((32, 32, 3), np.uint8))
    assert {p.name for p in tmp_path.iterdir()} == {f"clip{suffix}", f".other.00c0ffee{suffix}"}
