"""Damaged images, videos and noise files against the readers: each ends in frames or in one sentence.

    python -m ltxrt.parity.mutated_media --count 100000 --seed 1

Small files of every kind that is read are cut, overwritten, shortened and repeated, by a seeded generator.
The command ends with 1 at the first input that raises anything else, takes longer than a minute or a
gigabyte, and leaves that input in a folder that it names.
"""

from __future__ import annotations

import faulthandler
import random
import resource
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import click
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ltxrt.engines.command import ltxrt_command
from ltxrt.engines.errors import InputError, LtxrtError
from ltxrt.runtime import media, noise_file
from ltxrt.runtime.video import VideoWriter, read_metadata, read_video

NOISE = (1, 4, 2, 2, 3)
FRAMES = 9
SECONDS = 60  # a thousand times what one takes
MEMORY = 1 << 30  # bytes; a single picture may have up to 64 million pixels
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
    """Small whole files by name, made in `folder`."""
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
    for name in ("clip.mp4", "clip.webm"):
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


def read(path: Path) -> str:
    """How reading ends: "read" or "refused". Whatever else is raised is the finding."""
    try:
        if path.suffix == ".npy":
            noise_file.load(path, NOISE)
            return "read"
        media.count(media.Condition(path), FRAMES)
        if path.suffix in (".mp4", ".webm", ".mkv"):
            read_video(path)
            read_metadata(path)
        return "read"
    except InputError as error:
        if len(str(error)) > 1000 + 2 * len(str(path)):
            raise LtxrtError(f"a message of {len(str(error))} characters") from error
        return "refused"


def run(folder: Path, count: int, seed: int, watch: Callable[[], None] = lambda: None) -> Counter[str]:
    """Read `count` damaged files; how often each was read and refused. `watch` is called before each.

    What breaks the rule is raised, its input left in `folder` as `input.*`.
    """
    rng, found = random.Random(seed), Counter[str]()
    whole = samples(folder)
    names = sorted(whole)
    for number in range(count):
        name = names[number % len(names)]
        path = folder / f"input{Path(name).suffix}"
        path.write_bytes(mutated(whole[name], rng))
        watch()
        found[f"{name} {read(path)}"] += 1
        path.unlink()
    return found


def _used() -> int:
    """The most memory that this process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@ltxrt_command("mutated-media")
@click.option("--count", type=click.IntRange(1, 10**9), default=10_000, show_default=True, help="Inputs.")
@click.option("--seed", type=click.IntRange(0, 2**31), default=0, show_default=True)
def main(count: int, seed: int) -> None:
    """Read damaged media files; print how often they were read and refused."""
    folder, start = Path(tempfile.mkdtemp(prefix="mutated-media-")), _used()

    def watch() -> None:
        # Ends the process with a traceback, inside a decoder too, where no signal handler of Python's runs.
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        if _used() - start > MEMORY:
            raise MemoryError(f"the input before took {(_used() - start) >> 20} MiB")

    click.echo(f"the input that is read is in {folder}", err=True)
    try:
        found = run(folder, count, seed, watch)
    except Exception as error:
        raise LtxrtError(f"{type(error).__name__}: {error}; the input is in {folder}") from error
    faulthandler.cancel_dump_traceback_later()
    shutil.rmtree(folder)
    for name, number in sorted(found.items()):
        click.echo(f"{name}: {number}")


if __name__ == "__main__":
    main()
