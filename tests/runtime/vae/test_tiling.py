"""Tiles against the whole, through the real graphs in ONNX Runtime, and the arithmetic of seams by itself."""

import tracemalloc
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ltxrt.engines.backend import load_engine
from ltxrt.engines.bundle import read_bundle
from ltxrt.engines.errors import InputError
from ltxrt.engines.families.ltxv.facts import VaeFacts
from ltxrt.export.ltxv.models.vae import VaeDecoder, VaeEncoder
from ltxrt.parity.synthetic import models as synthetic_models
from ltxrt.runtime.sampling.latents import LatentShape
from ltxrt.runtime.vae import tiling
from ltxrt.runtime.vae.tiling import Axis, Tile

GRAPHS = ["0.9.0", "0.9.1", "0.9.5"]
TINY_DECODER = {"0.9.0": 13, "0.9.1": 9, "0.9.5": 9}  # receptive fields of the shallow test models
TINY_ENCODER_PAST = {"0.9.0": 19, "0.9.1": 19, "0.9.5": 13}
FACTS = VaeFacts(2, 32, 8, (0.0, 0.0), (1.0, 1.0), False, ())

CUTS = [(1, 1, 1), (5, 9, 1), (7, 3, 1), (8, 7, 6), (16, 6, 3), (31, 5, 4)]  # length, tile, overlap
AXES = [(*cut, *scale) for cut in CUTS for scale in [(8, 7), (32, 0), (1, 0)]]


def relative_l2(ours, whole):
    assert ours.shape == whole.shape
    return np.linalg.norm(ours.astype(np.float64) - whole) / np.linalg.norm(whole.astype(np.float64))


def psnr(ours, whole):
    """Of pixels in -1..1, in dB."""
    assert ours.shape == whole.shape
    return 10 * np.log10(4 / np.square(ours.astype(np.float64) - whole).mean())


class TestSeams:
    @pytest.mark.parametrize("axis", AXES, ids=str)
    @pytest.mark.parametrize("spans", [Axis.blended, Axis.past_only])
    def test_weights_add_up_to_one_everywhere(self, axis, spans):
        length, *_, scale, missing = axis
        total = np.zeros(length * scale - missing)
        for span in spans(Axis("frames", *axis)):
            assert (span.weights >= 0).all()
            total[span.outputs] += span.weights
        np.testing.assert_allclose(total, 1, rtol=0, atol=1e-6)

    @pytest.mark.parametrize("axis", AXES, ids=str)
    @pytest.mark.parametrize("spans", [Axis.blended, Axis.past_only])
    def test_each_tile_reads_as_many_cells_and_gives_what_is_taken_of_it(self, axis, spans):
        length, tile, overlap, scale, missing = axis
        found = spans(Axis("frames", *axis))
        (size,) = {span.cells.stop - span.cells.start for span in found}
        assert size <= tile
        assert (found[0].cells.start, found[-1].cells.stop) == (0, length)
        for span in found:
            taken = span.of_tile(scale)
            assert 0 <= taken.start < taken.stop <= size * scale - missing
        for one, other in pairwise(found):
            assert one.cells.stop - other.cells.start >= overlap

    @pytest.mark.parametrize("axis", AXES, ids=str)
    def test_half_of_the_overlap_less_half_a_cell_is_halo(self, axis):
        *_, overlap, scale, missing = axis
        spans = Axis("frames", *axis).blended()
        halo = max(0, (overlap * scale - missing - scale) // 2)
        for one, other in pairwise(spans):
            end = one.cells.stop * scale - missing
            assert end - one.outputs.stop >= halo
            assert other.outputs.start - other.cells.start * scale >= halo
            assert one.outputs.stop - other.outputs.start <= scale + 1

    def test_blend_is_linear_over_one_cell(self):
        left, right = Axis("columns", 6, 4, 2, 32).blended()
        assert (left.outputs, right.outputs) == (slice(0, 112), slice(80, 192))
        np.testing.assert_allclose(left.weights[80:], (31.5 - np.arange(32)) / 32, atol=1e-7)
        np.testing.assert_allclose(left.weights[80:] + right.weights[:32], 1, atol=1e-7)
        assert (left.weights[:80] == 1).all()

    def test_no_more_and_no_larger_tiles_than_the_limit_needs(self):
        assert Axis("frames", 17, 16, 3, 8, 7).starts() == (10, [0, 7])
        assert Axis("frames", 16, 16, 3, 8, 7).starts() == (16, [0])


@pytest.fixture(scope="module", params=GRAPHS)
def version(request):
    return request.param


@pytest.fixture(scope="module")
def vae(version, tiny_bundle):
    """The bundle's engines and a whole video: `decode(latents)` whole, `tiled(latents, tile)` in tiles."""
    bundle = read_bundle(tiny_bundle(version))
    facts = bundle.facts.vae
    with (
        load_engine(bundle, "vae_decoder", threads=1) as decoder,
        load_engine(bundle, "vae_encoder", threads=1) as encoder,
    ):

        def caller(latents):
            """The tile's decode, with noise maps that belong to these latents' place and size."""
            rng = np.random.default_rng(1)
            size = latents.shape[3:]
            maps = {
                m.scale: rng.standard_normal(
                    (m.count, m.scale * size[0], m.scale * size[1]), dtype=np.float32
                )
                for m in facts.noise_maps
            }

            def call(tile, rows, columns):
                feed = {"timestep": np.full(1, 0.05, np.float32)} if facts.timestep_conditioning else {}
                for s, noise in maps.items():
                    place = slice(s * rows.start, s * rows.stop), slice(s * columns.start, s * columns.stop)
                    feed[f"noise_{s}x"] = noise[:, *place]
                return decoder(latents=tile, **feed)["pixels"]

            return call

        def whole(latents):
            return caller(latents)(latents, slice(0, latents.shape[3]), slice(0, latents.shape[4]))[0]

        def tiled(latents, tile):
            return np.concatenate(list(tiling.decode(caller(latents), latents, tile, facts)), axis=1)

        yield SimpleNamespace(
            facts=facts, decode=whole, tiled=tiled, encode=lambda pixels: encoder(pixels=pixels)["latents"]
        )


def random_latents(facts, *grid):
    shape = (1, facts.latent_channels, *grid)
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def random_pixels(facts, frames, height, width):
    space = facts.spatial_compression
    shape = (1, 3, (frames - 1) * facts.temporal_compression + 1, height * space, width * space)
    return np.random.default_rng(0).random(shape, dtype=np.float32) * 2 - 1


class TestDecode:
    def test_frames_are_exact_where_the_overlap_covers_the_receptive_field(self, vae, version):
        overlap = 2 * TINY_DECODER[version] + 2
        latents = random_latents(vae.facts, overlap + 7, 1, 1)
        tile = Tile(overlap + 2, 1, 1, overlap_frames=overlap)
        assert relative_l2(vae.tiled(latents, tile), vae.decode(latents)) <= 1e-5

    @pytest.mark.parametrize("across", [False, True])
    def test_space_is_exact_where_the_overlap_covers_the_receptive_field(self, vae, version, across):
        overlap = 2 * TINY_DECODER[version] + 1
        sizes = (1, overlap + 6) if across else (overlap + 6, 1)
        latents = random_latents(vae.facts, 1, *sizes)
        tile = Tile(1, overlap + 2, overlap + 2, overlap_space=overlap)
        assert relative_l2(vae.tiled(latents, tile), vae.decode(latents)) <= 1e-5

    def test_more_overlap_is_closer_to_the_whole(self, vae):
        latents = random_latents(vae.facts, 20, 1, 1)
        whole = vae.decode(latents)
        found = [psnr(vae.tiled(latents, Tile(12, 1, 1, overlap_frames=o)), whole) for o in (1, 3, 8)]
        assert found == sorted(found)
        assert found[0] > 20 and found[1] > 25 and found[2] > 30

    def test_default_overlaps_on_odd_sizes(self, vae, version):
        """Floors of what was measured: white noise through random weights, where far cells matter most."""
        latents = random_latents(vae.facts, 7, 5, 11)
        tile = Tile(tiling.MIN_TILE_FRAMES, tiling.MIN_TILE_SIDE, tiling.MIN_TILE_SIDE)
        found, whole = vae.tiled(latents, tile), vae.decode(latents)
        assert psnr(found, whole) > {"0.9.0": 17, "0.9.1": 19, "0.9.5": 23}[version]
        cut = vae.tiled(latents, replace(tile, overlap_frames=1, overlap_space=0))
        assert psnr(found, whole) > psnr(cut, whole) + 3

    def test_one_frame(self, vae):
        latents = random_latents(vae.facts, 1, 3, 11)
        whole, tiled = vae.decode(latents), vae.tiled(latents, Tile(1, 8, 8))
        assert tiled.shape == whole.shape == (3, 1, 96, 352)
        assert psnr(tiled, whole) > 20

    def test_one_tile_is_the_whole_bit_for_bit(self, vae):
        latents = random_latents(vae.facts, 2, 3, 2)
        np.testing.assert_array_equal(
            vae.tiled(latents, Tile.whole(LatentShape(2, 3, 2))), vae.decode(latents)
        )


class TestEncode:
    def test_frames_are_exact_with_enough_past(self, vae, version):
        past = TINY_ENCODER_PAST[version]
        pixels = random_pixels(vae.facts, past + 8, 1, 1)
        whole = vae.encode(pixels)
        tiled = tiling.encode(vae.encode, pixels, Tile(past + 3, 1, 1, overlap_frames=past), vae.facts)
        assert relative_l2(tiled, whole) <= 1e-5
        less = tiling.encode(vae.encode, pixels, Tile(6, 1, 1, overlap_frames=1), vae.facts)
        assert 1e-3 < relative_l2(less, whole) < 0.5

    def test_space_is_blended(self, vae):
        pixels = random_pixels(vae.facts, 2, 7, 13)
        whole = vae.encode(pixels)
        tiles = [Tile(2, 12, 12, overlap_space=overlap) for overlap in (0, 4, 10)]
        errors = [relative_l2(tiling.encode(vae.encode, pixels, t, vae.facts), whole) for t in tiles]
        assert errors == sorted(errors, reverse=True)
        assert errors[2] < 0.1

    def test_one_tile_is_the_whole_bit_for_bit(self, vae):
        pixels = random_pixels(vae.facts, 2, 2, 3)
        tiled = tiling.encode(vae.encode, pixels, Tile.whole(LatentShape(2, 2, 3)), vae.facts)
        np.testing.assert_array_equal(tiled, vae.encode(pixels))


def constant_decoder(tile, rows, columns):
    """Pixels that say which latent frame they belong to, for FACTS."""
    frames = tile[:, :1].repeat(8, axis=2)[:, :, 7:]
    return frames.repeat(3, axis=1).repeat(32, axis=3).repeat(32, axis=4)


class TestStreaming:
    LATENTS = np.broadcast_to(np.arange(40, dtype=np.float32)[:, None, None], (1, 2, 40, 4, 6)).copy()

    def test_runs_are_in_order_and_each_tile_is_decoded_once_and_not_before_it_is_asked_for(self):
        calls = []

        def call(tile, rows, columns):
            calls.append((int(tile[0, 0, 0, 0, 0]), rows, columns))
            return constant_decoder(tile, rows, columns)

        runs = tiling.decode(call, self.LATENTS, Tile(8, 4, 4, overlap_space=2), FACTS)
        assert calls == []
        frames = []
        for number, run in enumerate(runs, 1):
            assert len(calls) == 2 * number
            assert run.dtype == np.float32 and run.shape[::2] == (3, 128)
            frames.append(run[0, :, 0, 0])
        starts = Axis("frames", 40, 8, 3, 8, 7).starts()[1]
        assert [start for start, _, _ in calls] == [s for s in starts for _ in range(2)]
        places = [(slice(0, 4), slice(0, 4)), (slice(0, 4), slice(2, 6))]
        assert [(rows, columns) for _, rows, columns in calls] == places * len(starts)
        wanted = np.arange(40).repeat(8)[7:]
        np.testing.assert_allclose(np.concatenate(frames), wanted, atol=1e-4)

    def test_holds_one_temporal_tile_and_not_the_video(self):
        frame, count = 3 * 128 * 192 * 4, 0
        tracemalloc.start()
        for run in tiling.decode(constant_decoder, self.LATENTS, Tile(8, 4, 4, overlap_space=2), FACTS):
            count += run.shape[1]
            del run
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert count == 313
        without_halo, shared = 8 * 8 - 7 - 4, 8
        one_tile = 57 * frame * 4 // 6  # the stand-in decoder holds its tile three times
        assert peak < (without_halo + shared) * frame + 3.5 * one_tile
        assert peak < count * frame


def narrow(version):
    """The release's own block lists, eight channels wide: a receptive field does not depend on the width."""
    config = synthetic_models.full(version).vae

    def thin(block):
        return replace(block, in_channels=block.in_channels // 16, out_channels=block.out_channels // 16)

    encoder, decoder = (tuple(map(thin, b)) for b in (config.encoder_blocks, config.decoder_blocks))
    return replace(config, latent_channels=8, encoder_blocks=encoder, decoder_blocks=decoder)


def noise_maps(config, grid):
    groups = enumerate(b for b in config.decoder_blocks if b.kind == "res")
    sizes = {2**i: (2 * b.layers, 2**i * grid[1], 2**i * grid[2]) for i, b in groups if b.inject_noise}
    return {f"noise_{scale}x": torch.zeros(size) for scale, size in sizes.items()}


def reached(module, size, axis, at, **inputs):
    """First and last index along `axis` of the output that a NaN at index `at` of the input reaches."""
    x = torch.zeros(size)
    x.select(axis, at).fill_(torch.nan)
    # Some of the fast kernels mix an output's neighbours in; the plain ones do not.
    with torch.no_grad(), torch.backends.mkldnn.flags(enabled=False):
        y = module(x, **inputs)
    found = y.movedim(axis, 0).flatten(1).isnan().any(1).nonzero().flatten()
    return int(found[0]), int(found[-1])


def filled(module):
    for parameter in module.parameters():
        torch.nn.init.constant_(parameter, 0.01)
    return module.eval()


class TestReceptiveFields:
    """The table in the module, by the releases' block lists."""

    @pytest.mark.parametrize(("version", "cells"), [("0.9.0", 24), ("0.9.1", 31), ("0.9.5", 22)])
    @pytest.mark.parametrize(("axis", "scale"), [(2, 8), (4, 32)])
    def test_decoder(self, version, cells, axis, scale):
        config, size, grid = narrow(version), [1, 8, 1, 1, 1], [1, 1, 1]
        size[axis] = grid[axis - 2] = 2 * cells + 3
        inputs = noise_maps(config, grid)
        if config.timestep_conditioning:
            inputs["timestep"] = torch.full((1,), 0.05)
        middle = cells + 1
        first, last = reached(filled(VaeDecoder(config)), size, axis, middle, **inputs)
        end = middle * scale if axis == 2 else (middle + 1) * scale - 1  # the cell's own last output
        back, ahead = end - scale + 1 - first, last - end
        assert back == ahead
        assert scale * (cells - 1) < ahead <= scale * cells

    @pytest.mark.parametrize(("version", "past"), [("0.9.0", 46), ("0.9.1", 46), ("0.9.5", 28)])
    def test_encoder_s_past(self, version, past):
        size = (1, 3, 8 * (past + 5) + 1, 32, 32)
        encoder = filled(VaeEncoder(narrow(version)))
        assert reached(encoder, size, 2, 8 * 3)[:2] == (3, 3 + past)

    @pytest.mark.parametrize(("version", "cells"), [("0.9.0", 23), ("0.9.1", 23), ("0.9.5", 16)])
    def test_encoder_in_space(self, version, cells):
        middle = cells + 1
        size = (1, 3, 1, 32, 32 * (2 * cells + 3))
        encoder = filled(VaeEncoder(narrow(version)))
        edges = [reached(encoder, size, 4, at) for at in (32 * middle, 32 * middle + 31)]
        assert max(max(middle - first, last - middle) for first, last in edges) == cells


class TestChoose:
    SHAPE = LatentShape(16, 22, 38)

    def test_whole_where_it_fits(self):
        assert tiling.choose(self.SHAPE, 1000 + 10 * 16 * 22 * 38, 1000, 10) == Tile.whole(self.SHAPE)

    def test_then_fewer_frames(self):
        assert tiling.choose(self.SHAPE, 999 + 10 * 16 * 22 * 38, 1000, 10) == Tile(15, 22, 38)
        assert tiling.choose(self.SHAPE, 1000 + 10 * 6 * 22 * 38, 1000, 10) == Tile(6, 22, 38)

    def test_then_less_space_too(self):
        assert tiling.choose(self.SHAPE, 1000 + 10 * 6 * 22 * 38 - 1, 1000, 10) == Tile(6, 22, 37)
        assert tiling.choose(self.SHAPE, 1000 + 10 * 6 * 8 * 8, 1000, 10) == Tile(6, 8, 8)

    @pytest.mark.parametrize("budget", range(5000, 200_000, 7919))
    def test_always_fits_and_always_works(self, budget):
        tile = tiling.choose(self.SHAPE, budget, 1000, 10)
        assert 1000 + 10 * tile.cells <= budget
        for length, size, overlap in zip((16, 22, 38), (tile.frames, tile.height, tile.width), (3, 4, 4)):
            assert Axis("frames", length, size, overlap, 8, 7, 1).blended()

    def test_a_short_video_needs_no_more_than_it_has(self):
        assert tiling.choose(LatentShape(1, 3, 40), 1000 + 10 * 24, 1000, 10) == Tile(1, 3, 8)

    def test_no_tensor_passes_the_largest(self):
        per_cell = tiling.LARGEST_TENSOR / (7.5 * 22 * 38)
        assert tiling.choose(self.SHAPE, 10**9, 0, 1, per_cell) == Tile(7, 22, 38)
        with pytest.raises(InputError, match=r"passes 2147483647 already in the smallest tile, 6×8×8 cells"):
            tiling.choose(self.SHAPE, 10**9, 0, 1, tiling.LARGEST_TENSOR / 383)

    def test_too_small_a_budget_names_the_smallest_that_works(self):
        with pytest.raises(InputError, match=r"budget of 100 MiB is too small.*6×8×8.*needs 394 MiB"):
            tiling.choose(self.SHAPE, 100 * 2**20, 10 * 2**20, 2**20)
        assert tiling.choose(self.SHAPE, 394 * 2**20, 10 * 2**20, 2**20) == Tile(6, 8, 8)


AMOUNTS = {"4GiB": 2**32, "512MiB": 2**29, "1000000": 10**6, "2.5GB": 25 * 10**8, "1 kb": 1000}


@pytest.mark.parametrize(("text", "size"), [*AMOUNTS.items(), (f"{2**53 + 1}", 2**53 + 1)])
def test_amounts_of_memory(text, size):
    assert tiling.parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "4 gigs", "-1", "0", "0GiB", "1.5", "1e9", "GiB", "4GiB2", "nan"])
def test_what_is_no_amount_of_memory(text):
    with pytest.raises(InputError, match=r"not an amount of memory: .* such as 4GiB"):
        tiling.parse_bytes(text)


@pytest.mark.parametrize(
    ("tile", "message"),
    [
        (Tile(2, 9, 9, overlap_frames=0), r"2 latent frames with an overlap of 0: the overlap must be 1"),
        (Tile(2, 9, 9, overlap_frames=2), r"overlap of 2: the overlap must be 1 to 1, .* at least 4"),
        (Tile(4, 2, 9, overlap_space=2), r"2 latent rows with an overlap of 2: the overlap must be 0 to 1"),
        (Tile(4, 9, 0), r"0 latent columns: "),
    ],
)
def test_tiles_that_cannot_cover_the_video(tile, message):
    latents = np.zeros((1, 2, 4, 3, 3), np.float32)
    with pytest.raises(InputError, match=message):
        tiling.decode(constant_decoder, latents, tile, FACTS)
    with pytest.raises(InputError, match=message):
        tiling.encode(lambda pixels: latents, np.zeros((1, 3, 25, 96, 96), np.float32), tile, FACTS)


def test_one_video_at_a_time_and_a_whole_number_of_cells():
    with pytest.raises(InputError, match=r"latents \(2, 2, 1, 1, 1\): .* one video"):
        tiling.decode(constant_decoder, np.zeros((2, 2, 1, 1, 1), np.float32), Tile(1, 1, 1), FACTS)
    with pytest.raises(InputError, match=r"pixels \(3, 1, 32, 32\): .* one video"):
        tiling.encode(lambda p: p, np.zeros((3, 1, 32, 32), np.float32), Tile(1, 1, 1), FACTS)
    with pytest.raises(InputError, match="8k\\+1"):
        tiling.encode(lambda p: p, np.zeros((1, 3, 8, 32, 32), np.float32), Tile(1, 1, 1), FACTS)
