"""The README's moving picture: commands that really run, in a terminal of their own, as an animated WebP.

    python .ci/record.py docs/readme/terminal.webp

A small checkpoint with random weights is made and exported; then it is shown and run. What is printed is
read through a pseudo-terminal, as a person would see it; only waits longer than `LONGEST_WAIT` are shortened,
and what takes longer than `LONGEST` together is played faster.
"""

from __future__ import annotations

import argparse
import dataclasses
import fcntl
import os
import pty
import select
import shlex
import struct
import sys
import tempfile
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import matplotlib
import pyte
from PIL import Image, ImageDraw, ImageFont

from ltxrt.parity.synthetic import checkpoint as synthetic
from ltxrt.parity.synthetic import models as synthetic_models

COLUMNS, ROWS, FONT_SIZE = 100, 17, 20
FRAME, LONGEST_WAIT, LONGEST, KEY, END = 0.1, 1.0, 20.0, 0.03, 4.0  # seconds
CHECKPOINT = "random-0.9.5.safetensors"
EXPORT = f"ltx-export onnx {CHECKPOINT} --text-encoder t5 --output bundle"
COMMANDS = (
    f"ltx-export inspect {CHECKPOINT}",
    'ltx-run --bundle bundle --prompt "waves break on a rocky shore" --height 256 --width 384 '
    "--num-frames 33 --output waves.mp4",
)
BACKGROUND, FOREGROUND = "#14161b", "#d8dee9"
COLOURS = {
    "black": "#3b4252", "red": "#bf616a", "green": "#a3be8c", "brown": "#ebcb8b", "yellow": "#ebcb8b",
    "blue": "#81a1c1", "magenta": "#b48ead", "cyan": "#88c0d0", "white": "#e5e9f0", "default": FOREGROUND,
    "brightblack": "#6b7488", "brightred": "#d08770", "brightgreen": "#b5d19c", "brightblue": "#9ab8d6",
    "brightmagenta": "#c8a2c4", "brightcyan": "#a3d4e0", "brightwhite": "#ffffff", "brightbrown": "#f3dba6",
}  # fmt: skip


Cell = tuple[int, int, str, str, str, bool]  # row, column, character, foreground, background, bold


@dataclasses.dataclass
class Recording:
    """What a screen showed, and the seconds for which it did."""

    screen: pyte.Screen
    shown: list[tuple[Cell, ...]]
    seconds: list[float]

    def hold(self, seconds: float) -> None:
        """The screen stays as it is so long. Nothing is drawn yet: the commands need the processor."""
        cells = tuple(
            (row, column, cell.data, cell.fg, cell.bg, cell.bold)
            for row, line in sorted(self.screen.buffer.items())
            for column, cell in sorted(line.items())
            if cell.data.strip() or cell.bg != "default"
        )
        if self.shown and cells == self.shown[-1]:
            self.seconds[-1] = min(self.seconds[-1] + seconds, LONGEST_WAIT)
        else:
            self.shown.append(cells)
            self.seconds.append(min(seconds, LONGEST_WAIT))

    def write(self, path: Path) -> None:
        speed = max(1.0, sum(self.seconds) / LONGEST)
        seconds = [*(seconds / speed for seconds in self.seconds[:-1]), END]
        pictures, durations = [], []
        for cells, left in zip(self.shown, seconds):
            if durations and durations[-1] < 0.5 * FRAME:  # too short to be seen: it becomes this one
                pictures[-1], durations[-1] = cells, durations[-1] + left
            else:
                pictures.append(cells)
                durations.append(left)
        first, *others = map(draw, pictures)
        milliseconds = [round(1000 * duration) for duration in durations]
        first.save(
            path,
            "WEBP",
            save_all=True,
            append_images=others,
            duration=milliseconds,
            loop=0,
            lossless=True,
            method=4,
        )


def fonts() -> tuple[ImageFont.FreeTypeFont, ImageFont.FreeTypeFont]:
    """Plain and bold; matplotlib brings them, so that the picture is the same everywhere."""
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    names = ("DejaVuSansMono.ttf", "DejaVuSansMono-Bold.ttf")
    plain, bold = (ImageFont.truetype(str(folder / name), FONT_SIZE) for name in names)
    return plain, bold


PLAIN, BOLD = fonts()
CELL, LINE, MARGIN = round(PLAIN.getlength("M")), round(1.35 * FONT_SIZE), FONT_SIZE


def draw(cells: tuple[Cell, ...]) -> Image.Image:
    size = (COLUMNS * CELL + 2 * MARGIN, ROWS * LINE + 2 * MARGIN)
    picture = Image.new("RGB", size, BACKGROUND)
    pen = ImageDraw.Draw(picture)
    for row, column, text, foreground, background, bold in cells:
        x, y = MARGIN + column * CELL, MARGIN + row * LINE
        if background != "default":
            pen.rectangle((x, y, x + CELL - 1, y + LINE - 1), fill=colour(background))
        pen.text((x, y), text, fill=colour(foreground), font=BOLD if bold else PLAIN)
    return picture


def colour(name: str) -> str:
    """pyte's name of a colour, or its six digits of 256 colours."""
    return COLOURS.get(name) or f"#{name}"


def output(words: list[str], folder: Path) -> Iterator[bytes]:
    """What the command prints to its terminal, in pieces; b"" where nothing came for a while."""
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(folder)
        commands = str(Path(sys.executable).parent)
        environment = {**os.environ, "PATH": f"{commands}:{os.environ['PATH']}", "TERM": "xterm-256color"}
        os.execvpe(words[0], words, {**environment, "XDG_CACHE_HOME": str(folder / "cache")})
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    try:
        while True:
            ready, _, _ = select.select([terminal], [], [], FRAME)
            piece = os.read(terminal, 65536) if ready else b""
            if ready and not piece:
                break
            yield piece
    except OSError:  # how Linux says that the other side is closed
        pass
    finally:
        os.close(terminal)
    _, status = os.waitpid(child, 0)
    if status:
        raise SystemExit(f"{shlex.join(words)} ended with {os.waitstatus_to_exitcode(status)}")


def record(folder: Path) -> Recording:
    screen = pyte.Screen(COLUMNS, ROWS)
    stream = pyte.ByteStream(screen)
    recording = Recording(screen, [], [])
    for command in COMMANDS:
        stream.feed(b"\x1b[32m$\x1b[0m ")
        recording.hold(0.5)
        for key in command.encode():
            stream.feed(bytes([key]))
            recording.hold(KEY)
        recording.hold(0.5)
        stream.feed(b"\r\n")
        last = time.monotonic()
        for piece in output(shlex.split(command), folder):
            stream.feed(piece)
            now = time.monotonic()
            if now - last >= FRAME:
                recording.hold(now - last)
                last = now
        recording.hold(0.7)
    return recording


def prepare(folder: Path) -> None:
    """A checkpoint, large enough that a run takes some seconds, and its bundle."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "waves.mp4").unlink(missing_ok=True)
    if (folder / "bundle").exists():
        return
    models = synthetic_models.tiny("0.9.5")
    transformer = dataclasses.replace(models.transformer, layers=4, heads=8, cross_attention_width=128)
    synthetic.write_official(folder / CHECKPOINT, transformer, models.vae, models.scheduler)
    synthetic.write_text_encoder(folder / "t5", models.text_encoder)
    for _ in output(shlex.split(EXPORT), folder):
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description="Record the README's moving picture.")
    parser.add_argument("picture", type=Path, help="the .webp to write")
    parser.add_argument("--work", type=Path, help="where the bundle is kept for another recording")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = arguments.work or Path(temporary)
        prepare(work)
        recording = record(work)
    picture = arguments.picture
    picture.parent.mkdir(parents=True, exist_ok=True)
    recording.write(picture)
    sys.stdout.write(f"{picture}: {sum(recording.seconds):.0f} s, {picture.stat().st_size / 1e3:.0f} kB\n")


if __name__ == "__main__":
    main()
