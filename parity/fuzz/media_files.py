"""Images, videos and noise files as a target: small valid ones of every kind, damaged and read to the end."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ltxrt.parity.fuzz.runner import Attempt
from ltxrt.runtime.media import read as media
from ltxrt.runtime.media import read_metadata, read_video
from ltxrt.runtime.media.write import VideoWriter
from ltxrt.runtime.noise import file as noise_file

NOISE = (1, 4, 2, 2, 3)
FRAMES = 9
STILLS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("RGB", "plain.png", {}),
    ("RGBA", "alpha.png", {}),
    ("P", "palette.png", {"transparency": 3}),
    ("I;16", "wide.png", {}),
    ("RGB", "plain.jpg", {}),
    ("RGB", "progressive.jpg", {"progressive": True}),
    ("CMYK", "cmyk.jpg", {}),
    ("RGB", "lossy.webp", {}),
    ("RGBA", "lossless.webp", {"lossless": True}),
    ("RGB", "still.gif", {}),
    ("RGB", "plain.bmp", {}),
    ("RGB", "raw.tif", {}),
    ("RGB", "lzw.tif", {"compression": "tiff_lzw"}),
)
ANIMATIONS = ("moving.png", "moving.webp", "moving.gif")
VIDEOS = (("clip.mkv", "libx264"), ("clip.avi", "mpeg4"), ("clip.mov", "mjpeg"))


def samples(folder: Path) -> dict[str, bytes]:
    """Small valid files by name, made in `folder`."""
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 255, (24, 40, 3), np.uint8) for _ in range(5)]
    first, *rest = (Image.fromarray(frame) for frame in frames)
    exif = Image.Exif()
    exif[0x0112] = 6
    for mode, name, options in STILLS:
        grey = frames[0][..., 0].astype(np.uint16) * 257
        image = Image.fromarray(grey) if mode == "I;16" else first.convert(mode)
        image.save(folder / name, **options)
    first.save(folder / "turned.jpg", exif=exif)
    first.save(folder / "phone.jpg", "MPO", save_all=True, append_images=rest[:1])
    for name in ANIMATIONS:
        first.save(folder / name, save_all=True, append_images=rest, duration=40)
    for name in ("clip.mp4", "clip.webm", "frames.npz"):
        with VideoWriter(folder / name, 24, 40, 24, {"prompt": "fog"}) as writer:
            for frame in frames:
                writer.write(frame)
    for name, codec in VIDEOS:
        _encode(folder / name, codec, frames)
    for name, dtype in (("single.npy", np.float32), ("half.npy", np.float16)):
        np.save(folder / name, np.zeros(NOISE, dtype))
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def _encode(path: Path, codec: str, frames: list[NDArray[np.uint8]]) -> None:
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=24)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format=stream.pix_fmt)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def mutated(data: bytes, rng: random.Random) -> bytes:
    """The file, damaged in one of six ways."""
    changed = bytearray(data)
    place = rng.randrange(len(data))
    length = rng.randint(1, 64)
    match rng.randrange(6):
        case 0:
            del changed[place:]
        case 1:
            for _ in range(rng.randint(1, 20)):
                changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        case 2:  # lengths and sizes stand at the beginning
            place = rng.randrange(min(len(data), 400))
            changed[place : place + 4] = bytes(rng.choice((0, 1, 127, 128, 255)) for _ in range(4))
        case 3:
            del changed[place : place + length]
        case 4:
            changed[place:place] = changed[place : place + length] * rng.randint(1, 40)
        case _:
            for _ in range(rng.randint(1, 8)):
                changed[rng.randrange(min(len(data), 200))] = rng.randrange(256)
    return bytes(changed)


def read(path: Path) -> None:
    """Read a file as a condition, and as a video or noise where it is named so; InputError refuses it."""
    if path.suffix == ".npy":
        noise_file.load(path, NOISE)
        return
    if path.suffix == ".npz":
        read_metadata(path)
        return
    media.count(media.Condition(path), FRAMES)
    if path.suffix in (".mp4", ".webm", ".mkv"):
        read_video(path)
    if path.suffix in (".mp4", ".webm", ".mkv", ".gif"):
        read_metadata(path)


def media_files(folder: Path) -> Attempt:
    """Images, animations, videos and noise files."""
    whole = samples(folder)
    names = sorted(whole)

    def attempt(rng: random.Random) -> None:
        name = rng.choice(names)
        path = folder / f"input{Path(name).suffix}"
        path.write_bytes(mutated(whole[name], rng))
        read(path)

    with Path(os.devnull).open("wb") as nowhere:  # libtiff prints what it finds damaged
        os.dup2(nowhere.fileno(), 2)
    return attempt
