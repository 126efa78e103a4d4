"""How an output is encoded: the formats by suffix, the codecs, and the choice of quality and depth.

Standard library only, since `ltx-run --help` lists the codecs.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ltxrt.engines.errors import InputError, setting
from ltxrt.engines.parsing.text import quoted

if TYPE_CHECKING:
    from fractions import Fraction

THREADS = 4  # fixed, because an encoder's output depends on it: the same file on any number of cores


@dataclass(frozen=True)
class Codec:
    """A video codec: FFmpeg's encoder, its constant-quality scale, and what pictures it takes.

    crf: the default; worst: the scale's other end, 0 being the best; depths: pixel format of each bit depth;
    even: whether sides must be even; least: the shortest side; tag: the container's name of it in MP4, where
    players need another than FFmpeg's.
    """

    encoder: str
    crf: int
    worst: int
    depths: Mapping[int, str]
    options: Mapping[str, str]
    even: bool = False
    least: int = 1
    tag: str | None = None


_420 = {8: "yuv420p", 10: "yuv420p10le"}
CODECS: Mapping[str, Codec] = {
    # x264's macroblock tree reads uninitialised memory: with it, equal frames give different files.
    "h264": Codec("libx264", 18, 51, _420, {"preset": "medium", "mbtree": "0"}, even=True, least=2),
    "h265": Codec(
        "libx265",
        20,
        51,
        _420,
        {"preset": "medium", "x265-params": f"log-level=none:frame-threads=2:pools={THREADS}"},
        even=True,
        least=16,
        tag="hvc1",
    ),
    "vp9": Codec("libvpx-vp9", 24, 63, {8: "yuv420p"}, {"b": "0", "row-mt": "1", "cpu-used": "2"}),
    "av1": Codec("libsvtav1", 24, 63, _420, {"preset": "6", "svtav1-params": f"lp={THREADS}"}, least=16),
}


@dataclass(frozen=True)
class Format:
    """What a suffix stands for: its codecs, the first of which is the default, or its bit depths.

    single: it holds one frame.
    """

    codecs: tuple[str, ...] = ()
    depths: tuple[int, ...] = (8,)
    container: Mapping[str, str] | None = None
    single: bool = False


FORMATS: Mapping[str, Format] = {
    ".mp4": Format(("h264", "h265", "av1", "vp9"), container={"movflags": "+faststart+use_metadata_tags"}),
    ".webm": Format(("vp9", "av1")),
    ".mkv": Format(("h264", "h265", "av1", "vp9")),
    ".gif": Format(),
    ".png": Format(depths=(8, 16), single=True),
    ".npy": Format(depths=(8, 16)),
    ".npz": Format(depths=(8, 16)),
    "": Format(depths=(8, 16)),  # a folder of PNG frames
}
SUFFIXES = tuple(suffix for suffix in FORMATS if suffix)
ALLOWED = f"{', '.join(SUFFIXES)}, or a name without suffix for a folder of PNG frames"
DEPTHS = (8, 10, 16)
# What counts as a format's suffix, including the two known ones that begin with a digit. Other text behind a
# dot, as in fog-1.5 or take.2-final, is part of the name.
_SUFFIX = re.compile(r"\.([a-z][a-z0-9]*|3gp|3g2)", re.IGNORECASE)


@dataclass(frozen=True)
class Encoding:
    """How frames are encoded; None leaves it to the format.

    codec: one of CODECS, where the suffix has several; crf: the codec's constant quality, 0 the best;
    bit_depth: 8, 10 with a codec that has it, 16 in PNG and NumPy files.
    """

    codec: str | None = None
    crf: int | None = None
    bit_depth: int = 8

    def resolved(self, path: Path) -> Encoding:
        """With what the format of `path` decides filled in. Raises InputError for what it does not have."""
        suffix = suffix_of(path)
        if suffix not in FORMATS:
            raise InputError(f"{setting('output')} {path}: the suffix must be {ALLOWED}")
        form, name = FORMATS[suffix], suffix or "a folder of PNG frames"
        if not form.codecs:
            for given, value in (("codec", self.codec), ("crf", self.crf)):
                if value is not None:
                    raise InputError(
                        f"{setting(given)} {quoted(value)}: {name} has no codec to choose; leave it out, or "
                        "write .mp4, .webm or .mkv"
                    )
            _check_depth(self.bit_depth, form.depths, name)
            return Encoding(bit_depth=self.bit_depth)
        codec = self.codec or form.codecs[0]
        if codec not in form.codecs:
            allowed = ", ".join(form.codecs)
            raise InputError(f"{setting('codec')} {quoted(codec)}: must be one of {allowed} in {name}")
        row = CODECS[codec]
        crf = row.crf if self.crf is None else self.crf
        if type(crf) is not int or not 0 <= crf <= row.worst:
            raise InputError(
                f"{setting('crf')} {quoted(crf)}: must be a whole number from 0, the best, to {row.worst} "
                f"with {codec}, whose default is {row.crf}"
            )
        _check_depth(self.bit_depth, tuple(row.depths), f"{codec} in {name}")
        return Encoding(codec, crf, self.bit_depth)

    def check_size(self, path: Path, height: int, width: int, num_frames: int = 1) -> None:
        """Raise InputError for a size in pixels, or a number of frames, that `path` cannot hold."""
        codec = self.resolved(path).codec
        if num_frames > 1 and FORMATS[suffix_of(path)].single:
            raise InputError(
                f"{setting('num_frames')} {num_frames}: {path} is one picture; give "
                f"{setting('num_frames')} 1, or a name without suffix for a folder of PNG frames"
            )
        if codec is None:
            return
        row = CODECS[codec]
        for name, side in (("height", height), ("width", width)):
            if side < row.least or (row.even and side % 2):
                rule = f"an even number of {row.least} or more" if row.even else f"{row.least} or more"
                raise InputError(
                    f"{setting(name)} {side}: must be {rule} for {codec}; change it, or write .gif, .npz "
                    "or a folder of PNG frames"
                )


def _check_depth(given: int, allowed: tuple[int, ...], where: str) -> None:
    if given not in allowed:
        shown = " or ".join(map(str, allowed))
        deep = [name for name, row in CODECS.items() if 10 in row.depths]
        raise InputError(
            f"{setting('bit_depth')} {quoted(given)}: must be {shown} for {where}; {', '.join(deep)} have "
            "10, and PNG and NumPy files 16"
        )


def suffix_of(path: Path) -> str:
    """The suffix that names a format, in lower case; "" for none, which means a folder of PNG frames."""
    return path.suffix.lower() if _SUFFIX.fullmatch(path.suffix) else ""


def as_fraction(frame_rate: float) -> Fraction:
    """The exact rate that a decimal means: 23.976 and 29.97 are the NTSC rates 24000/1001 and 30000/1001."""
    if not 0 < frame_rate <= sys.float_info.max:  # NaN compares false; an int may be too large to convert
        raise InputError(f"frame rate {quoted(frame_rate)}: must be a number of frames per second above 0")
    from fractions import Fraction  # with decimal, a sixth of what --help takes

    whole = round(frame_rate * 1.001)
    ntsc = Fraction(whole * 1000, 1001)
    if abs(float(ntsc) - frame_rate) < 2e-3 and frame_rate != int(frame_rate):
        return ntsc
    return Fraction(frame_rate).limit_denominator(100_000)
