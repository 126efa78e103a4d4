"""Decoding and encoding in tiles of latent cells, so that memory follows the tile and not the video.

Only the slicing, the weights and the choice of a tile are here; whoever calls gives the engine as a function.

What is exact. A tile's result is wrong only near the sides where it was cut, within the network's receptive
field of r latent cells. Of the overlap of two tiles both outer parts (the halo) are thrown away, and one
cell's width in the middle is blended linearly, so

- decoding equals the whole decode (fp32 noise apart) along every axis that is not cut, or whose overlap is
  at least 2r + 1 cells in space, 2r + 2 frames in time; what is blended is then right on both sides;
- with less overlap it is smooth, and off by what cells beyond the halo contribute;
- encoding is exact in time where `overlap_frames` is at least r: the encoder sees only the past, so a tile
  is never wrong at its end, and what two tiles share is taken from the earlier one. In space it is blended.

r of the three autoencoder graphs, as tests/runtime/vae/test_tiling.py finds it with a NaN in one cell. It is
wider than any sensible overlap, but the far cells hardly matter, which is why a few cells of overlap do:

             decoder, every side    encoder, frames back    encoder, space
    first            24                     46                    23
    noise maps       31                     46                    23
    latest           22                     28                    16

Frames. The decoder makes `time * (frames - 1) + 1` frames of a tile, as if it were a clip of its own: latent
frame k > 0 of a video holds frames `time * k - (time - 1)` to `time * k`, so a tile of latent frames [a, b)
gives frames `time * a` to `time * (b - 1)`, of its first latent frame only the last. Hence tiles that do not
overlap by at least one latent frame would leave frames out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise, product
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ltxrt.engines.errors import InputError, setting
from ltxrt.engines.parsing.text import quoted
from ltxrt.runtime.sampling.latents import Compression, LatentShape, VideoShape

Array = NDArray[np.float32]
Decode = Callable[[Array, slice, slice], Array]
Encode = Callable[[Array], Array]

OVERLAP_FRAMES = 3  # 17 pixel frames: 8 blended, 4 of halo on each side
OVERLAP_SPACE = 4  # 128 pixels: 32 blended, 48 of halo on each side
MIN_TILE_FRAMES = 2 * OVERLAP_FRAMES  # below this, more than half of the work is done twice
MIN_TILE_SIDE = 2 * OVERLAP_SPACE
WORKSPACE = (
    1.3  # what ONNX Runtime's CPU takes of the activations computed; tests/export/graph/test_memory.py
)
LARGEST_TENSOR = 2**31 - 1  # elements: convolutions and TensorRT index with 32 bits

UNITS = {"": 1, "B": 1} | {
    f"{prefix}{end}": base**power
    for end, base in (("B", 1000), ("iB", 1024))
    for power, prefix in enumerate("KMGT", 1)
}


@dataclass(frozen=True)
class Tile:
    """The largest tile in latent cells, and how many cells neighbouring tiles share at least.

    An axis that is not longer than the tile is not cut, and its overlap does not matter.
    """

    frames: int
    height: int
    width: int
    overlap_frames: int = OVERLAP_FRAMES
    overlap_space: int = OVERLAP_SPACE

    @classmethod
    def whole(cls, shape: LatentShape) -> Tile:
        """One tile for everything."""
        return cls(shape.frames, shape.height, shape.width)

    @property
    def cells(self) -> int:
        """What memory is proportional to."""
        return self.frames * self.height * self.width


@dataclass(frozen=True)
class Span:
    """One tile along one axis: the cells it reads, and the weights of the outputs it is not cut off from.

    `cells` and `outputs` count from the video's start. `weights` belongs to `outputs`; everywhere the
    weights of all spans add up to 1.
    """

    cells: slice
    outputs: slice
    weights: Array

    def of_tile(self, scale: int) -> slice:
        """Where `outputs` lie in what the tile gives, whose first output is that of its first cell."""
        first = self.cells.start * scale
        return slice(self.outputs.start - first, self.outputs.stop - first)


@dataclass(frozen=True)
class Axis:
    """`length` cells in tiles of at most `tile`, each cell making `scale` outputs, less `missing` in all."""

    name: str
    length: int
    tile: int
    overlap: int
    scale: int
    missing: int = 0
    least_overlap: int = 0

    def starts(self) -> tuple[int, list[int]]:
        """The tiles' common size and first cells: as few as the limit allows, as small as that needs."""
        if self.tile >= self.length:
            return self.length, [0]
        if self.tile < 1:
            raise InputError(f"tiles of {self.tile} latent {self.name}: must be 1 or more")
        if not self.least_overlap <= self.overlap < self.tile:
            raise InputError(
                f"tiles of {self.tile} latent {self.name} with an overlap of {self.overlap}: "
                f"the overlap must be {self.least_overlap} to {self.tile - 1}, or the tile at least "
                f"{self.length} and whole"
            )
        count = -(-(self.length - self.overlap) // (self.tile - self.overlap))
        size = -(-(self.length + (count - 1) * self.overlap) // count)
        return size, [i * (self.length - size) // (count - 1) for i in range(count)]

    def blended(self) -> list[Span]:
        """Spans whose overlaps are halo, one cell's width of linear blend in the middle, halo."""
        size, starts = self.starts()
        width = min(self.scale, self.overlap * self.scale - self.missing)
        middles = [((a + size + b) * self.scale - self.missing) / 2 for a, b in pairwise(starts)]
        return self._spans(size, starts, [(middle - width / 2, middle + width / 2) for middle in middles])

    def past_only(self) -> list[Span]:
        """Spans of a causal network: what two tiles share is taken from the earlier one."""
        size, starts = self.starts()
        ends = [(a + size) * self.scale - self.missing for a in starts[:-1]]
        return self._spans(size, starts, [(end, end) for end in ends])

    def _spans(self, size: int, starts: list[int], seams: list[tuple[float, float]]) -> list[Span]:
        """One span per start; between seam i's two ends the weight passes from span i to span i + 1."""
        total = self.length * self.scale - self.missing
        edges = [(0.0, 0.0), *seams, (float(total), float(total))]
        spans = []
        for start, fade_in, fade_out in zip(starts, edges, edges[1:]):
            outputs = slice(math.floor(fade_in[0]), math.ceil(fade_out[1]))
            at = np.arange(outputs.start, outputs.stop, dtype=np.float64) + 0.5
            weights = (_passed(at, fade_in) - _passed(at, fade_out)).astype(np.float32)
            spans.append(Span(slice(start, start + size), outputs, weights))
        return spans


def _passed(at: NDArray[np.float64], seam: tuple[float, float]) -> NDArray[np.float64]:
    """0 before the seam, 1 after it, linear between."""
    begin, end = seam
    if begin == end:
        return (at > begin).astype(np.float64)
    return np.clip((at - begin) / (end - begin), 0, 1)


def decode(call: Decode, latents: Array, tiles: Tile, vae: Compression) -> Iterator[Array]:
    """Pixels of normalised latents (1, C, f, h, w), as runs (3, n, H, W) of finished frames in order.

    `call(latents (1, C, f', h', w'), rows, columns)` decodes one tile to pixels (1, 3, F', H', W');
    `rows` and `columns` are the tile's place in the latents, for what else the decoder reads per cell
    (noise maps). Tiles have one size, and are called row by row for each run of frames.

    Held at any moment, beside one tile's pixels (twice while they are weighted): the frames of one temporal
    tile without halo, at full height and width, and of the one before it the frames being blended, at most
    `time`. A run that the caller keeps comes on top. The module says what is exact.

    Raises InputError for tiles that cannot cover the latents, before the first call.
    """
    if latents.ndim != 5 or latents.shape[0] != 1:
        raise InputError(f"latents {latents.shape}: decoding in tiles takes one video, (1, C, f, h, w)")
    shape = LatentShape(*latents.shape[2:])
    time, *space = _axes(shape, tiles, vae)
    frames, rows, columns = time.blended(), space[0].blended(), space[1].blended()
    if len(frames) == len(rows) == len(columns) == 1:
        return _single_run(call, latents)
    return _runs(call, latents, (frames, rows, columns), shape.video(vae), vae)


def _single_run(call: Decode, latents: Array) -> Iterator[Array]:
    """Decode without tiles, without a second copy of the pixels."""
    yield call(latents, slice(0, latents.shape[3]), slice(0, latents.shape[4]))[0]


def _runs(
    call: Decode,
    latents: Array,
    spans: tuple[list[Span], list[Span], list[Span]],
    video: VideoShape,
    vae: Compression,
) -> Iterator[Array]:
    """One run per span of frames; the frames that the next span shares stay behind."""
    frames, rows, columns = spans
    held = np.zeros((3, 0, video.height, video.width), np.float32)
    ends = [following.outputs.start for following in frames[1:]] + [video.num_frames]
    for time, end in zip(frames, ends):
        count = time.outputs.stop - time.outputs.start
        run = np.zeros((3, count, video.height, video.width), np.float32)
        run[:, : held.shape[1]] = held
        for row, column in product(rows, columns):
            tile = np.ascontiguousarray(latents[:, :, time.cells, row.cells, column.cells])
            place = run[:, :, row.outputs, column.outputs]
            place += _weighted(call(tile, row.cells, column.cells)[0], (time, row, column), vae)
        finished = end - time.outputs.start
        held = run[:, finished:].copy()
        yield run[:, :finished]
        del run  # while the next tile is decoded only the tail is held here


def _weighted(pixels: Array, spans: tuple[Span, Span, Span], vae: Compression) -> Array:
    """A tile's pixels (3, F', H', W') without halo, times the weights of all three axes."""
    time, row, column = spans
    kept = pixels[
        :,
        time.of_tile(vae.temporal_compression),
        row.of_tile(vae.spatial_compression),
        column.of_tile(vae.spatial_compression),
    ]
    weighted = kept * time.weights[:, None, None]
    weighted *= row.weights[:, None] * column.weights
    return weighted


def count(shape: LatentShape, tiles: Tile, vae: Compression) -> int:
    """How many tiles of at most `tiles` cover latents of `shape`."""
    return math.prod(len(axis.starts()[1]) for axis in _axes(shape, tiles, vae))


def encode(call: Encode, pixels: Array, tiles: Tile, vae: Compression) -> Array:
    """Latents (1, C, f, h, w) of pixels (1, 3, F, H, W) in −1..1.

    `call(pixels (1, 3, F', H', W'))` encodes one tile, itself a video of valid size. The module says what
    is exact. Raises InputError for pixels that are no whole number of cells, and for tiles that cannot
    cover them.
    """
    if pixels.ndim != 5 or pixels.shape[0] != 1:
        raise InputError(f"pixels {pixels.shape}: encoding in tiles takes one video, (1, 3, F, H, W)")
    shape = VideoShape(*pixels.shape[2:]).latent(vae)
    time, *space = _axes(shape, tiles, vae, to_latents=True)
    latents = np.zeros(shape.grid(0), np.float32)  # how many channels there are, the first tile shows
    for frames, row, column in product(time.past_only(), space[0].blended(), space[1].blended()):
        tile = call(np.ascontiguousarray(pixels[(..., *_pixel_slices((frames, row, column), vae))]))
        if latents.shape[1] == 0:
            latents = np.zeros(shape.grid(tile.shape[1]), np.float32)
        kept = tile[:, :, frames.of_tile(1), row.of_tile(1), column.of_tile(1)]
        weights = frames.weights[:, None, None] * (row.weights[:, None] * column.weights)
        latents[:, :, frames.outputs, row.outputs, column.outputs] += kept * weights
    return latents


def _pixel_slices(spans: tuple[Span, Span, Span], vae: Compression) -> tuple[slice, slice, slice]:
    """The frames, rows and columns that these cells are made of when the tile is a clip of its own."""
    frames, row, column = (span.cells for span in spans)
    time, space = vae.temporal_compression, vae.spatial_compression
    return (
        slice(frames.start * time, (frames.stop - 1) * time + 1),
        slice(row.start * space, row.stop * space),
        slice(column.start * space, column.stop * space),
    )


def _axes(
    shape: LatentShape, tiles: Tile, vae: Compression, to_latents: bool = False
) -> tuple[Axis, Axis, Axis]:
    """Frames, rows and columns, counting outputs in pixels or in latents."""
    time, space = (1, 1) if to_latents else (vae.temporal_compression, vae.spatial_compression)
    overlaps = tiles.overlap_frames, tiles.overlap_space
    return (
        # One frame of overlap at least: of a tile's first latent frame there is only one pixel frame.
        Axis("frames", shape.frames, tiles.frames, overlaps[0], time, time - 1, least_overlap=1),
        Axis("rows", shape.height, tiles.height, overlaps[1], space),
        Axis("columns", shape.width, tiles.width, overlaps[1], space),
    )


class Memory(Protocol):
    """What a graph takes for a video of n latent cells: `fixed_bytes` + `bytes_per_cell` · n of activations,
    and `elements_per_cell` · n elements in its largest tensor."""

    @property
    def fixed_bytes(self) -> int: ...

    @property
    def bytes_per_cell(self) -> int: ...

    @property
    def elements_per_cell(self) -> int: ...


def fitting(shape: LatentShape, budget: int, memory: Memory | None) -> Tile:
    """The largest tile for which a graph that takes `memory` stays within `budget` bytes; whole where nothing
    is known of the graph. Raises InputError as `choose`."""
    if memory is None:
        return Tile.whole(shape)
    fixed, per_cell = round(memory.fixed_bytes * WORKSPACE), memory.bytes_per_cell * WORKSPACE
    return choose(shape, budget, fixed, per_cell, memory.elements_per_cell)


def choose(
    shape: LatentShape, budget: int, fixed: int, per_cell: float, elements_per_cell: float | None = None
) -> Tile:
    """The largest tile for which `fixed + per_cell * cells` bytes fit `budget`.

    The whole video if that fits, otherwise cut in time, then in space as well. With `elements_per_cell`, the
    elements of the largest tensor per cell, that tensor stays within LARGEST_TENSOR too. Raises InputError
    where the smallest sensible tile does not fit.
    """
    least = Tile(
        min(shape.frames, MIN_TILE_FRAMES), min(shape.height, MIN_TILE_SIDE), min(shape.width, MIN_TILE_SIDE)
    )
    cells = math.floor((budget - fixed) / per_cell)
    if cells < least.cells:
        needed = math.ceil((fixed + per_cell * least.cells) / UNITS["MiB"])
        given = f"{budget / UNITS['MiB']:.4g} MiB" if budget >= UNITS["MiB"] else f"{budget} bytes"
        raise InputError(
            f"{setting('vae_memory')}: a memory budget of {given} is too small: the "
            f"smallest tile, {least.frames}×{least.height}×{least.width} latent cells, needs {needed} MiB; "
            "give that or more"
        )
    if elements_per_cell is not None:
        cells = min(cells, math.floor(LARGEST_TENSOR / elements_per_cell))
        if cells < least.cells:
            raise InputError(
                f"a tensor of {elements_per_cell:.4g} elements per latent cell passes {LARGEST_TENSOR} "
                f"already in the smallest tile, {least.frames}×{least.height}×{least.width} cells"
            )
    side = _side(shape, cells // least.frames)
    height, width = min(shape.height, side), min(shape.width, side)
    return Tile(min(shape.frames, cells // (height * width)), height, width)


def _side(shape: LatentShape, area: int) -> int:
    """The longest side of a tile that is square where the video is not shorter, within `area` cells."""
    longest = max(shape.height, shape.width)
    return next(s for s in range(longest, 0, -1) if min(shape.height, s) * min(shape.width, s) <= area)


def parse_bytes(text: str) -> int:
    """Bytes of "4GiB", "512 MiB", "2.5GB" or "1000000"; fractions of a byte are dropped.

    Units are B, KB to TB (1000) and KiB to TiB (1024), in any case. Raises InputError for anything else.
    """
    match = re.fullmatch(r"\s*([0-9]{1,20}(?:\.[0-9]{1,20})?)\s*([A-Za-z]*)\s*", text)
    units = {unit.lower(): size for unit, size in UNITS.items()}
    size = units.get(match[2].lower()) if match else None
    if match is None or size is None or int(Decimal(match[1]) * size) < 1 or ("." in match[1] and size == 1):
        raise InputError(
            f"{quoted(text)} is not an amount of memory: give a positive number of bytes, or with a unit of "
            f"{', '.join(UNITS)[2:]}, such as 4GiB"
        )
    return int(Decimal(match[1]) * size)
