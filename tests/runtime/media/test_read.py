"""Images and videos that users give: named, looked at, read."""

import struct

import numpy as np
import pytest
from PIL import Image

from ltxrt.engines.errors import InputError, setting
from ltxrt.engines.families.ltxv.facts import VaeFacts
from ltxrt.runtime.media import read as media
from ltxrt.runtime.media.preprocess import PREPARATIONS, Fit
from ltxrt.runtime.media.read import Condition, parse
from ltxrt.runtime.media.write import VideoWriter

VAE = VaeFacts(16, 32, 8, (0.0,) * 16, (1.0,) * 16, True, ())
PLAIN = PREPARATIONS["plain"]


@pytest.mark.parametrize(
    ("text", "path", "frame", "strength"),
    [
        ("a.png", "a.png", 0, 1.0),
        ("a.png@96", "a.png", 96, 1.0),
        ("a.png@96:0.5", "a.png", 96, 0.5),
        ("me@home.png", "me@home.png", 0, 1.0),
        ("me@home.png@8:1", "me@home.png", 8, 1.0),
        ("C:/clips/a.mp4@16", "C:/clips/a.mp4", 16, 1.0),
    ],
)
def test_conditions_are_read_from_the_right(text, path, frame, strength):
    found = parse(text)
    assert (str(found.path), found.frame, found.strength) == (path, frame, strength)
    assert found.label == f"{setting('conditions')} {text}"


def test_a_file_of_that_very_name_is_that_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shot@12").touch()
    assert (str(parse("shot@12").path), parse("shot@12").frame) == ("shot@12", 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.png@8.5", r"must be MEDIA"),
        ("a.png@1.5:0.3", r"must be MEDIA"),
        ("a.png@8:0.5:3", r"must be MEDIA"),
        ("a.png@middle", r"must be MEDIA\[@FRAME\[:STRENGTH\]\]"),
        ("a.png@8:1.2", "strength 1.2 must be a number between 0 and 1"),
        ("a.png@8:strong", "strength strong must be a number between 0 and 1"),
        ("a.png@-8", "frame -8 must be 0 or more"),
    ],
)
def test_slips_are_named(text, message):
    with pytest.raises(InputError, match=message):
        parse(text)


def frames(count, height=64, width=96):
    """Grey frames that grow brighter."""
    return np.broadcast_to(
        np.linspace(40, 200, count).astype(np.uint8)[:, None, None, None], (count, height, width, 3)
    )


@pytest.fixture
def clip(tmp_path):
    with VideoWriter(tmp_path / "clip.mp4", 64, 96, 24, {}) as writer:
        for frame in frames(21):
            writer.write(frame)
    return tmp_path / "clip.mp4"


def read(path, frame=0, num_frames=33, height=64, width=96):
    return media.read(Condition(path, frame), Fit((height, width), (height, width)), num_frames, VAE, PLAIN)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "still.gif"])
def test_an_image_is_one_frame(tmp_path, name):
    Image.fromarray(frames(1)[0]).save(tmp_path / name)
    pixels = read(tmp_path / name)
    assert pixels.shape == (3, 1, 64, 96) and pixels.dtype == np.float32
    np.testing.assert_allclose(pixels, 40 / 127.5 - 1, atol=0.03)
    assert media.count(Condition(tmp_path / name), 5) == 1


def test_a_video_is_cut_to_what_fits(clip):
    assert read(clip).shape == (3, 17, 64, 96)  # 21 frames hold 8·2 + 1
    assert read(clip, frame=24).shape == (3, 9, 64, 96)  # of 33
    assert read(clip, height=32, width=32).shape == (3, 17, 32, 32)
    brightness = (read(clip).mean(axis=(0, 2, 3)) + 1) * 127.5
    np.testing.assert_allclose(brightness, np.linspace(40, 200, 21)[:17], atol=4)
    assert [media.count(Condition(clip), limit) for limit in (5, 100)] == [5, 21]
    assert media.trimmed(21, 0, 33, VAE) == 17 and media.trimmed(1, 40, 33, VAE) == 1


def test_no_more_is_decoded_than_is_used(clip, monkeypatch):
    seen = []
    whole = media._video
    monkeypatch.setattr(media, "_video", lambda *a: (seen.append(1) or f for f in whole(*a)))
    read(clip, num_frames=9)
    assert len(seen) == 9


def test_an_animation_is_a_video_whatever_its_suffix(tmp_path):
    pictures = [Image.fromarray(frame) for frame in frames(9)]
    pictures[0].save(tmp_path / "a.gif", save_all=True, append_images=pictures[1:], duration=40)
    assert read(tmp_path / "a.gif").shape == (3, 9, 64, 96)
    (tmp_path / "a.gif").rename(tmp_path / "a.png")
    assert read(tmp_path / "a.png").shape == (3, 9, 64, 96)


def test_unreadable_files_get_one_sentence(tmp_path, clip):
    with pytest.raises(InputError, match=r"absent\.mp4: no such file"):
        read(tmp_path / "absent.mp4")
    (tmp_path / "notes.txt").write_text("words " * 100)
    for call in (lambda p: read(p), lambda p: media.count(Condition(p), 9)):
        with pytest.raises(InputError, match=r"notes\.txt: neither an image nor a video"):
            call(tmp_path / "notes.txt")
    (tmp_path / "cut.mp4").write_bytes(clip.read_bytes()[:300])
    with pytest.raises(InputError, match=r"cut\.mp4: neither an image nor a video"):
        read(tmp_path / "cut.mp4")
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(InputError, match=r"empty\.mp4"):
        read(tmp_path / "empty.mp4")
    Image.fromarray(frames(1)[0]).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:60])
    with pytest.raises(InputError, match=r"cut\.png"):
        read(tmp_path / "cut.png")
    with pytest.raises(InputError, match="is a folder; give a file"):
        read(tmp_path)


def test_photos_with_a_preview_are_images(tmp_path):
    """What many phones write: a JPEG with a second picture in it, turned by its EXIF orientation."""
    exif = Image.Exif()
    exif[0x0112] = 6
    one, two = (Image.fromarray(frame) for frame in frames(2))
    one.save(tmp_path / "phone.jpg", "MPO", save_all=True, append_images=[two], exif=exif.tobytes())
    assert media.count(Condition(tmp_path / "phone.jpg"), 9) == 1
    assert read(tmp_path / "phone.jpg").shape == (3, 1, 64, 96)
    assert media.read_image(tmp_path / "phone.jpg", "x").shape == (96, 64, 3), "upright"


@pytest.mark.parametrize(
    ("degrees", "matrix"), [(90, (0, 1, -1, 0)), (180, (-1, 0, 0, -1)), (270, (0, -1, 1, 0))]
)
def test_a_video_is_turned_as_its_container_says(clip, degrees, matrix):
    """What a phone held upright writes; `degrees` are clockwise."""
    with VideoWriter(clip, 64, 96, 24, {}) as writer:
        for _ in range(9):
            writer.write(np.tile(np.linspace(0, 255, 96).astype(np.uint8)[:, None], (64, 1, 3)))
    data = bytearray(clip.read_bytes())
    there = data.index(b"tkhd") + 4 + 4 + 5 * 4 + 2 * 8  # its matrix: 16.16, the last column 2.30
    a, b, c, d = (one << 16 for one in matrix)
    data[there : there + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    clip.write_bytes(data)
    height, width = (64, 96) if degrees == 180 else (96, 64)
    pixels = read(clip, num_frames=9, height=height, width=width)[:, 0].mean(axis=0)
    upright = np.rot90(pixels, degrees // 90)  # back, counterclockwise
    np.testing.assert_allclose(upright, np.tile(np.linspace(-1, 1, 96), (64, 1)), atol=0.05)


def test_names_that_no_file_can_have(tmp_path):
    name = "a" * 5000 + ".png"
    assert str(parse(name).path) == name
    with pytest.raises(InputError, match="no such file"):
        read(name)
