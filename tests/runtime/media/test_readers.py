"""Which files are opened as images and videos, by what, and up to which size."""

import os
import struct
import zlib
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import EpsImagePlugin, GifImagePlugin, Image, PngImagePlugin

from ltxrt.engines.errors import InputError
from ltxrt.runtime.media import read as media
from ltxrt.runtime.media import read_metadata, read_video, readers
from ltxrt.runtime.media.read import Condition, read_image
from ltxrt.runtime.media.write import VideoWriter
from ltxrt.runtime.noise.file import load

EPS = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n%%EndComments\nshowpage\n"
PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:9,\nclip.ts\n#EXT-X-ENDLIST\n"
SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="64" height="64"><rect width="9" height="9"/></svg>'


def count(path, limit=99):
    return media.count(Condition(path), limit)


def frames(number, height=64, width=96):
    return [np.full((height, width, 3), 20 * index, np.uint8) for index in range(number)]


def encode(path, codec, number=9):
    """A video by FFmpeg's own muxer of the suffix."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=24)
        stream.height, stream.width, stream.pix_fmt = 64, 96, "yuv420p"
        for frame in frames(number):
            container.mux(
                stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="yuv420p"))
            )
        container.mux(stream.encode())
    return path


@pytest.fixture
def clip(tmp_path):
    with VideoWriter(tmp_path / "clip.mp4", 64, 96, 24, {}) as writer:
        for frame in frames(9):
            writer.write(frame)
    return tmp_path / "clip.mp4"


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(path, height, width, *chunks):
    """A PNG that says how large it is and holds hardly a pixel."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(1 + 3 * width)))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + pixels + chunk(b"IEND", b""))
    return path


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "gif", "bmp", "tif", "avif"])
def test_still_images_are_read(tmp_path, suffix):
    Image.fromarray(frames(3)[2]).save(tmp_path / f"a.{suffix}")
    assert count(tmp_path / f"a.{suffix}") == 1
    assert read_image(tmp_path / f"a.{suffix}", "x").shape == (64, 96, 3)


@pytest.mark.parametrize("suffix", ["png", "webp", "gif"])
def test_animations_are_read(tmp_path, suffix):
    first, *rest = map(Image.fromarray, frames(9))
    first.save(tmp_path / f"a.{suffix}", save_all=True, append_images=rest, duration=40)
    assert (count(tmp_path / f"a.{suffix}"), count(tmp_path / f"a.{suffix}", 4)) == (9, 4)


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.mp4", "libx264"),
        ("a.mov", "libx264"),
        ("a.mkv", "libx264"),
        ("a.webm", "libvpx-vp9"),
        ("a.avi", "mpeg4"),
    ],
)
def test_videos_are_read(tmp_path, name, codec):
    assert count(encode(tmp_path / name, codec)) == 9
    assert read_video(tmp_path / name)[0].shape == (9, 64, 96, 3)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("photo.png", EPS),
        ("clip2.mp4", PLAYLIST),
        ("clip.m3u8", PLAYLIST),
        ("list.mp4", "ffconcat version 1.0\nfile clip.mp4\n"),
        ("list.ffconcat", "ffconcat version 1.0\nfile clip.mp4\n"),
        ("drawing.png", SVG),
        ("drawing.svg", SVG),
        ("words.mp4", "1\n00:00:00,000 --> 00:00:02,000\nhello\n"),
        ("notes.txt", "words " * 100),
        ("raw.ppm", "P3 2 1 255 1 2 3 4 5 6\n"),
        ("icon.xpm", '/* XPM */\nstatic char *x[] = {"1 1 1 1", "a c #000000", "a"};\n'),
    ],
)
def test_what_is_not_on_the_lists_is_refused(tmp_path, clip, name, content):
    """Documents that a program draws, lists of other files, text, and formats that nobody asked for."""
    encode(tmp_path / "clip.ts", "libx264")
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=r"neither an image nor a video that can be read.*; give PNG, JPEG"):
        count(tmp_path / name)
    with pytest.raises(InputError, match="not an image in a supported format"):
        read_image(tmp_path / name, "--image x")
    with pytest.raises(InputError, match="neither an image nor a video"):
        read_video(tmp_path / name)


def test_no_program_is_run_for_a_picture(tmp_path, monkeypatch):
    program = tmp_path / "gs"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    (tmp_path / "photo.png").write_text(EPS)
    for read in (count, lambda path: read_image(path, "x")):
        with pytest.raises(InputError):
            read(tmp_path / "photo.png")
    assert not (tmp_path / "ran").exists()


def test_a_photo_in_tiles_is_not_taken_for_its_first_tile(clip):
    clip.write_bytes(clip.read_bytes().replace(b"ftypisom", b"ftypheic"))
    with pytest.raises(InputError, match="is a HEIF photo, which is not supported; save it as JPEG or PNG"):
        count(clip)


@pytest.mark.parametrize(("height", "width"), [(9000, 9000), (60_000, 60_000)])
def test_a_picture_too_large_is_refused_by_its_header(tmp_path, height, width):
    path = png(tmp_path / "a.png", height, width)
    for read in (count, lambda path: read_image(path, "x")):
        with pytest.raises(InputError, match=r"pixels.*; scale it down first"):
            read(path)


def test_frames_too_large_are_refused_by_the_header(tmp_path, clip, monkeypatch):
    first, second = map(Image.fromarray, frames(2))
    first.save(tmp_path / "a.gif", save_all=True, append_images=[second])
    data = bytearray((tmp_path / "a.gif").read_bytes())
    data[6:10] = struct.pack("<HH", 8000, 8000)  # the canvas
    (tmp_path / "a.gif").write_bytes(data)
    with pytest.raises(InputError, match="has 8000x8000 pixels, more than 35 million; scale it down first"):
        count(tmp_path / "a.gif")
    monkeypatch.setattr(readers, "FRAME_PIXELS", 96 * 64 - 1)
    with pytest.raises(InputError, match="has 96x64 pixels, more than"):
        count(clip)


def test_frames_are_not_counted_where_any_number_of_them_fits(tmp_path, monkeypatch):
    """Counting those of a GIF reads all of it."""
    first, *rest = map(Image.fromarray, frames(9))
    first.save(tmp_path / "a.gif", save_all=True, append_images=rest)
    monkeypatch.setattr(GifImagePlugin.GifImageFile, "n_frames", property(lambda _: pytest.fail("counted")))
    assert count(tmp_path / "a.gif", 4) == 4
    assert count(tmp_path / "a.gif") == 9


def test_frames_that_grow_are_refused(tmp_path):
    first, second = map(Image.fromarray, frames(2))
    first.save(tmp_path / "a.gif", save_all=True, append_images=[second])
    data = bytearray((tmp_path / "a.gif").read_bytes())
    there = data.rindex(b"\x2c\x00\x00\x00\x00\x60\x00\x40\x00")  # the second frame's place and size
    data[there + 5 : there + 9] = struct.pack("<HH", 8000, 8000)
    (tmp_path / "a.gif").write_bytes(data)
    with pytest.raises(InputError, match="has 8000x8000 pixels, more than 35 million"):
        count(tmp_path / "a.gif")


def test_what_the_frames_themselves_say_is_bounded(clip, monkeypatch):
    monkeypatch.setattr(readers, "check_size", lambda *_: None)  # a header that lies
    monkeypatch.setattr(readers, "FRAME_PIXELS", 1000)
    with pytest.raises(InputError, match="does not decode"):
        count(clip)


@pytest.mark.parametrize("name", ["a.mp4", "a.webm", "a.gif"])
def test_the_pixels_of_all_frames_are_bounded(tmp_path, monkeypatch, name):
    with VideoWriter(tmp_path / name, 64, 96, 24, {}) as writer:
        for frame in frames(9):
            writer.write(frame)
    for module in (readers, media):
        monkeypatch.setattr(module, "VIDEO_PIXELS", 5 * 64 * 96)
    assert count(tmp_path / name, 5) == 5
    with pytest.raises(InputError, match=r"its first \d frames of 96x64 pixels have together more than"):
        count(tmp_path / name, 9)


@pytest.mark.parametrize("kind", [b"zTXt", b"iCCP"])
def test_words_that_inflate_are_refused(tmp_path, kind):
    bomb = chunk(kind, b"name\0\0" + zlib.compress(bytes(4 * PngImagePlugin.MAX_TEXT_CHUNK)))
    with pytest.raises(InputError, match="does not decode"):
        count(png(tmp_path / "a.png", 1, 1, bomb))


def test_frames_of_several_sizes_fit_a_condition_and_no_array(tmp_path):
    with av.open(str(tmp_path / "a.avi"), "w") as container:
        stream = container.add_stream("mjpeg", rate=24)
        stream.height, stream.width, stream.pix_fmt = 64, 96, "yuvj420p"
        for number, size in enumerate([(64, 96)] * 9 + [(32, 48)] * 9):
            encoder = av.CodecContext.create("mjpeg", "w")
            encoder.height, encoder.width, encoder.pix_fmt = *size, "yuvj420p"
            encoder.time_base = Fraction(1, 24)
            picture = av.VideoFrame.from_ndarray(frames(1, *size)[0], format="rgb24").reformat(
                format="yuvj420p"
            )
            picture.pts = number
            for packet in encoder.encode(picture):
                packet.stream = stream
                container.mux(packet)
    assert count(tmp_path / "a.avi") == 18
    with pytest.raises(InputError, match="has frames of several sizes"):
        read_video(tmp_path / "a.avi")


READ = {
    "--condition": count,
    "--image": lambda path: read_image(path, f"--image {path}"),
    "--noise-file": lambda path: load(path, (1, 4, 2, 2, 3)),
    "read_video": read_video,
    "read_metadata": read_metadata,
}


@pytest.mark.parametrize("read", READ.values(), ids=READ)
def test_pipes_devices_and_empty_files_are_not_opened(tmp_path, read):
    os.mkfifo(tmp_path / "pipe.gif")
    (tmp_path / "empty.gif").touch()
    (tmp_path / "zero.gif").symlink_to("/dev/zero")
    (tmp_path / "nowhere.gif").symlink_to(tmp_path / "absent")
    for path, message in {
        tmp_path / "pipe.gif": "is not a regular file",
        tmp_path / "zero.gif": "is not a regular file",
        Path("/dev/zero"): "is not a regular file",
        tmp_path / "empty.gif": r"is empty \(0 bytes\)",
        tmp_path / "nowhere.gif": "no such file",
        tmp_path / ("n" * 300): "no such file|File name too long",
        Path("a\0b"): "no such file|null byte",
    }.items():
        with pytest.raises(InputError, match=message):
            read(path)


def test_a_long_panorama_is_read(tmp_path):
    Image.new("RGB", (20_000, 20)).save(tmp_path / "a.png")
    assert count(tmp_path / "a.png") == 1


def test_a_link_to_a_picture_is_that_picture(tmp_path):
    Image.fromarray(frames(1)[0]).save(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to("a.png")
    assert count(tmp_path / "b.png") == 1
