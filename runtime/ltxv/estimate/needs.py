"""The stages of a run with the sizes of their calls, and estimates of the bytes that each takes.

The autoencoder's activations are in the bundle, computed from its graphs. The others follow from the facts:
the graphs keep so many values per token alive (`ltxrt.export.graph.memory`), and attention without a fused
kernel writes a score for each pair of tokens. tests/runtime/ltxv/estimate/test_needs.py and
`python -m ltxrt.parity.proofs.memory` compare the estimates with what runs took. On GPUs: not verified.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ltxrt.engines.backend import needs_gpu
from ltxrt.runtime.engine_pool import Engines
from ltxrt.runtime.ltxv.plan import PassPlan, Plan
from ltxrt.runtime.ltxv.results import stage_name
from ltxrt.runtime.sampling.latents import LatentShape
from ltxrt.runtime.vae import tiling
from ltxrt.runtime.vae.tiling import WORKSPACE, Tile

Sizes = Mapping[str, int]  # values of the contract's symbols

# Values that a graph keeps alive at once, per token and unit of width.
TRANSFORMER_VALUES = 13
TEXT_ENCODER_VALUES = 16
UPSAMPLER_VALUES = (
    96  # per cell and latent channel; it works in four times the channels at four times the area
)
SCORES = 2  # copies of attention's scores: before and after the softmax
FRAMES_WAITING = 64  # of 8 bits: in the queue before the video's encoder, and in its own
T5_HEAD = 64  # the width of a head of T5
# ONNX Runtime's CPU computes 16-bit graphs in fp32: it copies the weights while loading, casts values around
# operators, and keeps some in both types. Multiples of what is stored, of fp32 values, of what is computed.
CPU_HALF_WEIGHTS = 2.5
CPU_HALF_VALUES = 4
CPU_HALF_WORKSPACE = 1.7


@dataclass(frozen=True)
class Need:
    """A stage: its component, the largest call, and bytes. `activations` is None where nothing is known.

    weights: as stored, of which the CPU backend maps fp32 ones from the disk; arrays: frames, latents and
    tables beside the engine, always in main memory.
    """

    stage: str
    component: str
    sizes: Sizes
    calls: int
    weights: int
    activations: int | None
    arrays: int

    @property
    def engine_bytes(self) -> int:
        """What is in the memory of the processor that runs the engine, at least."""
        return self.weights + (self.activations or 0)


def needs(plan: Plan, engines: Engines) -> tuple[Need, ...]:
    """Every stage of a run in its order."""
    return tuple(_Run(plan, engines).stages())


class _Run:
    def __init__(self, plan: Plan, engines: Engines) -> None:
        self._plan, self._bundle = plan, engines.bundle
        self._gpu = needs_gpu(engines.backend)

    def stages(self) -> Iterator[Need]:
        plan, count = self._plan, len(self._plan.passes)
        prompts, tokens = (2 if plan.settings.guided else 1), plan.settings.preset.max_tokens
        yield self._need("text encoder", "text_encoder", {"B": prompts, "T": tokens}, 1, 0)
        if plan.settings.request.input_video is not None:
            yield self._encoding("image encoder", plan.encoded())
        for number, one in enumerate(plan.passes, 1):
            if number > 1:
                before = plan.passes[number - 2].shape
                yield self._need("latent upsampler", "latent_upsampler", _grid(before), 1, self._latents(one))
            if plan.checked.items:
                yield self._encoding(stage_name("image encoder", number, count), plan.encoded(number - 1))
            yield self._sampling(stage_name("transformer", number, count), one)
        yield self._decoding()

    def _sampling(self, stage: str, one: PassPlan) -> Need:
        facts, tokens = self._plan.model.transformer, one.shape.tokens + one.own_tokens
        branches = max(len(step.branches) for step in one.guidance)
        text = self._plan.settings.preset.max_tokens
        sizes = {"B": branches, "N": tokens, "K": 1 + len(self._plan.checked.items), "T": text}
        tables = 2 * 4 * tokens * facts.width  # cosines and sines, and the backend's copy of them
        return self._need(
            stage, "transformer", sizes, len(one.sigmas), tables + self._latents(one) * (2 + branches)
        )

    def _encoding(self, stage: str, shapes: list[LatentShape]) -> Need:
        """The largest of what is encoded: pixels in fp32, read, prepared and cut."""
        vae = self._plan.model.vae
        largest = max(shapes, key=lambda shape: shape.tokens)
        video = largest.video(vae)
        pixels = 3 * 4 * video.num_frames * video.height * video.width
        tile = self._plan.encoder_tiles.get(largest) or Tile.whole(largest)
        return self._need(stage, "vae_encoder", _cells(tile, largest), len(shapes), 3 * pixels)

    def _decoding(self) -> Need:
        """Frames in fp32, of one temporal tile and the tail of the one before it; those of the decoder's only
        call are among its activations. Beside them the frames that wait for the video's encoder or are in it.
        """
        shape, vae = self._plan.passes[-1].shape, self._plan.model.vae
        tile = self._plan.decoder_tile or Tile.whole(shape)
        video = LatentShape(min(tile.frames, shape.frames), shape.height, shape.width).video(vae)
        calls = tiling.count(shape, tile, vae)
        frames = 3 * 4 * video.num_frames * video.height * video.width
        waiting = FRAMES_WAITING * 3 * video.height * video.width
        arrays = waiting + (2 * frames if calls > 1 else 0)
        return self._need("image decoder", "vae_decoder", _cells(tile, shape), calls, arrays)

    def _latents(self, one: PassPlan) -> int:
        return 4 * self._plan.model.vae.latent_channels * (one.shape.tokens + one.own_tokens)

    def _need(self, stage: str, component: str, sizes: Sizes, calls: int, arrays: int) -> Need:
        precision = self._plan.precisions[component]
        graph = self._bundle.components[component][precision]
        stored = sum(file.bytes for file in (graph.file, *graph.data))
        half = precision != "fp32"
        weights = round(stored * CPU_HALF_WEIGHTS) if half and not self._gpu else stored
        activations = self._activations(component, sizes, half)
        return Need(stage, component, sizes, calls, weights, activations, arrays)

    def _activations(self, component: str, sizes: Sizes, half: bool) -> int | None:
        """Bytes of a call's values; `half`: the graph has a 16-bit type."""
        model = self._plan.model
        value = (2 if self._gpu else 4 * CPU_HALF_VALUES) if half else 4
        score = 0 if half and self._gpu else SCORES * 4
        if component == "text_encoder":
            width, tokens = model.transformer.caption_channels, sizes["T"]
            pairs = max(width // T5_HEAD, 1) * tokens**2
            return sizes["B"] * (value * TEXT_ENCODER_VALUES * tokens * width + score * pairs)
        if component == "transformer":
            facts, tokens = model.transformer, sizes["N"]
            pairs = facts.heads * tokens * max(tokens, sizes["T"])
            return sizes["B"] * (value * TRANSFORMER_VALUES * tokens * facts.width + score * pairs)
        cells = sizes["f"] * sizes["h"] * sizes["w"]
        if component == "latent_upsampler":
            return value * UPSAMPLER_VALUES * model.vae.latent_channels * cells
        memory = self._bundle.components[component][self._plan.precisions[component]].memory
        if memory is None:
            return None
        workspace = CPU_HALF_WORKSPACE if half and not self._gpu else WORKSPACE
        return round(workspace * (memory.fixed_bytes + memory.bytes_per_cell * cells))


def _grid(shape: LatentShape) -> Sizes:
    return {"B": 1, "f": shape.frames, "h": shape.height, "w": shape.width}


def _cells(tile: Tile, shape: LatentShape) -> Sizes:
    """The largest tile of a shape."""
    return _grid(
        LatentShape(
            min(tile.frames, shape.frames), min(tile.height, shape.height), min(tile.width, shape.width)
        )
    )
