"""Codecs, qualities, depths and arrays: what is written is read back, what does not fit is refused before."""

import json
import re
import zipfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from ltxrt.engines.errors import InputError
from ltxrt.runtime.media import read_metadata, read_video
from ltxrt.runtime.media.formats.encoding import CODECS, FORMATS, Encoding
from ltxrt.runtime.media.write import VideoWriter, check_output, to_uint16

PAIRS = [(suffix, codec) for suffix, form in FORMATS.items() for codec in form.codecs]
NAMES = {"h264": "h264", "h265": "hevc", "vp9": "vp9", "av1": "libdav1d"}


def moving(count=5, height=64, width=96, dtype=np.uint8):
    t, y, x = np.mgrid[0:count, 0:height, 0:width].astype(np.float64)
    channels = [0.5 + 0.4 * np.sin(x / 20 + t / 3), 0.5 + 0.4 * np.cos(y / 17), 0.3 + 0.02 * t]
    return (np.stack(channels, axis=-1) * np.iinfo(dtype).max).astype(dtype)


def write(path, frames, encoding, metadata=None):
    size = frames.shape[1:3]
    with VideoWriter(path, *size, 24.0, {"seed": "7"} if metadata is None else metadata, encoding) as writer:
        for frame in frames:
            writer.write(frame)


def psnr(one, two):
    return -10 * np.log10(np.mean((one.astype(float) - two.astype(float)) ** 2) / 255**2)


@pytest.mark.parametrize(("suffix", "codec"), PAIRS)
def test_every_codec_of_a_format_is_written_and_remembered(tmp_path, suffix, codec):
    path, frames = tmp_path / f"v{suffix}", moving()
    write(path, frames, Encoding(codec))
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.name == NAMES[codec]
    back, rate = read_video(path)
    assert (back.shape, rate) == (frames.shape, Fraction(24))
    assert psnr(back, frames) > 36
    found = json.loads(read_metadata(path)["encoding"])
    assert found == {"codec": codec, "crf": CODECS[codec].crf, "bit_depth": 8}


@pytest.mark.parametrize("codec", CODECS)
def test_a_smaller_crf_is_a_better_and_larger_file(tmp_path, codec):
    noise = np.random.default_rng(0).integers(0, 60, (5, 64, 96, 3), np.uint8)
    frames = moving() // 2 + noise
    sizes = []
    for crf in (5, 45):
        path = tmp_path / f"{crf}.mkv"
        write(path, frames, Encoding(codec, crf))
        sizes.append((path.stat().st_size, psnr(read_video(path)[0], frames)))
    assert sizes[0][0] > 1.5 * sizes[1][0] and sizes[0][1] > sizes[1][1] + 1


@pytest.mark.parametrize("codec", [name for name, row in CODECS.items() if 10 in row.depths])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_ten_bits_hold_what_eight_do_not(tmp_path, codec, dtype):
    path, frames = tmp_path / "v.mp4", moving(dtype=dtype)
    write(path, frames, Encoding(codec, crf=1, bit_depth=10))
    with av.open(str(path)) as container:
        pictures = list(container.decode(video=0))
        assert pictures[0].format.name == "yuv420p10le"
        luma = pictures[0].to_ndarray(format="yuv420p10le")[:64]
    assert len(np.unique(luma)) > 300  # of 8 bits there are 220


def test_sixteen_bits_of_a_png_folder_are_exact(tmp_path):
    frames = moving(2, dtype=np.uint16)
    write(tmp_path / "frames", frames, Encoding(bit_depth=16))
    for number, frame in enumerate(frames):
        with av.open(str(tmp_path / "frames" / f"{number:05d}.png")) as container:
            picture = next(container.decode(video=0))
        assert picture.format.name == "rgb48be"
        np.testing.assert_array_equal(picture.to_ndarray(format="rgb48le"), frame)


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize(("dtype", "bit_depth"), [(np.uint8, 8), (np.uint16, 16)])
def test_arrays_are_the_frames_and_need_no_pickle(tmp_path, suffix, dtype, bit_depth):
    path, frames = tmp_path / f"v{suffix}", moving(12, 33, 47, dtype)
    write(path, frames, Encoding(bit_depth=bit_depth))
    read = np.load(path, allow_pickle=False)
    back = read if suffix == ".npy" else read["frames"]
    assert back.dtype == dtype
    np.testing.assert_array_equal(back, frames)
    if suffix == ".npz":
        assert Fraction(str(read["frame_rate"])) == 24
        assert read_metadata(path)["seed"] == json.loads(str(read["metadata"]))["seed"] == "7"
    else:
        with pytest.raises(InputError, match=r"holds frames alone; \.npz has the metadata"):
            read_metadata(path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("name", ["v.mp4", "v.webm", "v.mkv", "v.gif", "v.npz", "frames"])
def test_without_metadata_a_video_says_nothing_of_itself(tmp_path, name):
    write(tmp_path / name, moving(2), Encoding(), {})
    assert not {"seed", "encoding", "ltxrt"} & read_metadata(tmp_path / name).keys()


@pytest.mark.parametrize(
    ("name", "encoding", "message"),
    [
        ("v.webm", Encoding("h264"), r"codec 'h264': must be one of vp9, av1 in \.webm"),
        ("v.mp4", Encoding("h263"), r"codec 'h263': must be one of h264, h265, av1, vp9 in \.mp4"),
        (
            "v.gif",
            Encoding("av1"),
            r"codec 'av1': \.gif has no codec to choose; leave it out, or",
        ),
        ("frames", Encoding(crf=3), r"crf 3: a folder of PNG frames has no codec"),
        ("v.mp4", Encoding(crf=52), r"crf 52: must be a whole number from 0, the best, to 51 with h264"),
        ("v.mp4", Encoding(crf=-1), r"crf -1: must be"),
        ("v.mp4", Encoding(crf=2.5), r"crf 2\.5: must be"),
        (
            "v.webm",
            Encoding(bit_depth=10),
            r"bit_depth 10: must be 8 for vp9 in \.webm; h264, h265",
        ),
        ("v.mp4", Encoding(bit_depth=16), r"bit_depth 16: must be 8 or 10 for h264 in \.mp4"),
        ("v.npy", Encoding(bit_depth=10), r"bit_depth 10: must be 8 or 16 for \.npy"),
        ("v.avi", Encoding(), r"output .*v\.avi: the suffix must be \.mp4"),
    ],
)
def test_what_a_format_does_not_have_is_refused_before_the_work(tmp_path, name, encoding, message):
    with pytest.raises(InputError, match=message) as caught:
        check_output(tmp_path / name, encoding)
    assert caught.value.field == message.split()[0]


@pytest.mark.parametrize("codec", CODECS)
def test_a_size_that_a_codec_cannot_hold_is_refused_and_others_are_written(tmp_path, codec):
    row, path = CODECS[codec], tmp_path / "v.mkv"
    for height, width in ((33, 64), (64, 35), (row.least, row.least), (8, 8)):
        fits = min(height, width) >= row.least and not (row.even and (height % 2 or width % 2))
        if fits:
            write(path, moving(2, height, width), Encoding(codec))
            assert read_video(path)[0].shape == (2, height, width, 3)
        else:
            with pytest.raises(InputError, match=rf"(height|width) \d+: must be .* for {codec}; change it"):
                write(path, moving(2, height, width), Encoding(codec))


@pytest.mark.parametrize(("dtype", "bit_depth"), [(np.uint8, 8), (np.uint16, 16)])
def test_one_frame_is_a_picture_with_its_metadata(tmp_path, dtype, bit_depth):
    path, frames = tmp_path / "v.png", moving(1, 33, 47, dtype)
    told = {"prompt": "a “wave”\nand 波", "seed": "7"}
    write(path, frames, Encoding(bit_depth=bit_depth), told)
    with av.open(str(path)) as container:
        read = next(container.decode(video=0)).to_ndarray(format="rgb48le" if bit_depth > 8 else "rgb24")
    np.testing.assert_array_equal(read, frames[0])
    assert {name: read_metadata(path)[name] for name in told} == told
    with pytest.raises(InputError, match="is one picture; give one frame"):
        write(tmp_path / "w.png", moving(2, dtype=dtype), Encoding(bit_depth=bit_depth))
    with pytest.raises(InputError, match=r"num_frames 9: w\.png is one picture; give num_frames 1"):
        Encoding().check_size(Path("w.png"), 64, 96, 9)
    assert [p.name for p in tmp_path.iterdir()] == ["v.png"]


def test_frames_of_a_deeper_type_than_the_file_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"frame uint16 .*: must be uint8 \(64, 96, 3\)"):
        write(tmp_path / "v.mp4", moving(1, dtype=np.uint16), Encoding())


def test_to_uint16_covers_the_full_range():
    pixels = np.array([-2, -1, 0, 1, 3], np.float32).reshape(1, 5, 1, 1).repeat(3, axis=0)
    assert to_uint16(pixels)[:, 0, 0, 0].tolist() == [0, 0, 32768, 65535, 65535]


@pytest.mark.parametrize(
    "member",
    [None, b"", b"no array", np.zeros(3), np.array(b"bytes"), np.array(["a", "b"])],
)
def test_an_archive_of_another_kind_has_no_metadata(tmp_path, member):
    path = tmp_path / "v.npz"
    if member is None:
        path.write_bytes(b"PK no archive")
    elif isinstance(member, bytes):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("metadata.npy", member)
    else:
        np.savez(path, metadata=member)
    with pytest.raises(InputError, match=f"^{re.escape(str(path))}: (has no readable metadata|does not dec)"):
        read_metadata(path)


def test_what_a_name_stands_for_is_in_the_table():
    assert Encoding().resolved(Path("a.MP4")) == Encoding("h264", 18, 8)
    assert Encoding().resolved(Path("take.2")) == Encoding()
