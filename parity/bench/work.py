"""What the contenders are asked to do, and the inputs that all of them are given. NumPy only: a worker's cold
start is measured with the imports of this module.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ltxrt.engines.families.ltxv.facts import Facts, TransformerFacts, VaeFacts
from ltxrt.runtime.sampling import rope
from ltxrt.runtime.sampling.latents import LatentShape

Grid = tuple[int, int, int]  # latent frames, height, width
Feed = dict[str, np.ndarray]
FRAME_RATE = 25.0
TIME_CHANNELS = 256  # of the sinusoid that the time embedding reads
MODULATION_ROWS = 6  # shift, scale and gate of a block's two branches


@dataclass(frozen=True)
class Contender:
    """Who does the work. kind: `ltxrt`, `torch` (diffusers), or a library that multiplies matrices.

    backend: of ltxrt; device: of torch; compiled: through torch.compile; unavailable: why it cannot be asked.
    """

    name: str
    kind: str
    backend: str = ""
    device: str = "cpu"
    compiled: bool = False
    unavailable: str = ""


@dataclass(frozen=True)
class Work:
    """One piece of work. kind: a component's name, `t2v`, `i2v` or `matmul`.

    model: the folder with `bundle/` and `diffusers/`; grid: the latents' size, or (rows, inner, columns) of a
    matrix product; text: text tokens; steps: of a video; keep_loaded: whether ltxrt keeps its engines for the
    next video; calls: how many calls of a component ltxrt is to load its engine for.
    """

    kind: str
    model: str
    threads: int
    grid: Grid = (1, 1, 1)
    text: int = 128
    steps: int = 0
    keep_loaded: bool = True
    calls: int = 1

    @property
    def bundle(self) -> Path:
        return Path(self.model) / "bundle"

    @property
    def diffusers(self) -> Path:
        return Path(self.model) / "diffusers"


def grid_of(tokens: int) -> Grid:
    """Latent frames, height and width of `tokens` cells, as near to a cube as the number allows."""
    sides = [d for d in range(1, tokens + 1) if tokens % d == 0]
    pairs = itertools.combinations_with_replacement(sides, 2)
    grids = [(a, b, tokens // (a * b)) for a, b in pairs if tokens % (a * b) == 0 and tokens // (a * b) >= b]
    return min(grids, key=lambda grid: grid[2] - grid[0])


def component_feed(facts: Facts, work: Work) -> Feed:
    """The inputs of any component, by the contract's names."""
    rng = np.random.default_rng(0)
    if work.kind == "text_encoder":
        vocabulary = facts.text_encoder.vocab_size if facts.text_encoder else 2
        ids = rng.integers(2, max(3, vocabulary), (1, work.text))
        return {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    if facts.transformer is None or facts.vae is None:
        raise ValueError("the benchmark's bundles have a transformer and record their autoencoder's facts")
    if work.kind == "transformer":
        return _transformer_feed(facts.transformer, facts.vae, work, rng)
    if work.kind == "vae_encoder":
        return {"pixels": picture(LatentShape(*work.grid), facts.vae)[None]}
    latents = rng.standard_normal((1, facts.vae.latent_channels, *work.grid), dtype=np.float32)
    conditioned = facts.vae.timestep_conditioning
    return {"latents": latents} | ({"timestep": np.full(1, 0.05, np.float32)} if conditioned else {})


def _transformer_feed(facts: TransformerFacts, vae: VaeFacts, work: Work, rng: np.random.Generator) -> Feed:
    """One sample, one timestep, no text token masked, nothing perturbed.

    Coordinates are not causal: diffusers' transformer makes its own, which never are.
    """
    shape = LatentShape(*work.grid)
    coordinates = rope.coordinates(shape, FRAME_RATE, False, vae)
    cos, sin = rope.tables(coordinates, facts.width, facts.rope_theta, facts.rope_max_positions)
    return {
        "latents": rng.standard_normal((1, shape.tokens, facts.in_channels), dtype=np.float32),
        "timesteps": np.full((1, 1), 0.7, np.float32),
        "timestep_index": np.zeros((1, shape.tokens), np.int64),
        "context": rng.standard_normal((1, work.text, facts.caption_channels), dtype=np.float32),
        "context_mask": np.ones((1, work.text), np.bool_),
        "rope_cos": cos,
        "rope_sin": sin,
        "perturbation_mask": np.ones((facts.layers, 3, 1), np.bool_),
    }


def picture(shape: LatentShape, vae: VaeFacts) -> np.ndarray:
    """Pixels (3,F,H,W) in −1..1 of a latent shape."""
    video = shape.video(vae)
    size = (3, video.num_frames, video.height, video.width)
    return np.tanh(np.random.default_rng(5).standard_normal(size, dtype=np.float32))


def first_frame(work: Work, vae: VaeFacts) -> np.ndarray:
    """The image (3,H,W) in −1..1 that an image-to-video run starts from."""
    return picture(LatentShape(1, *work.grid[1:]), vae)[:, 0]


def video_options(work: Work, vae: VaeFacts) -> dict[str, Any]:
    """A request's fields that have the same name in diffusers' pipelines."""
    video = LatentShape(*work.grid).video(vae)
    return {
        "prompt": "waves break on a rocky shore, the camera drifts to the left",
        "negative_prompt": "blurry",
        "height": video.height,
        "width": video.width,
        "num_frames": video.num_frames,
        "frame_rate": FRAME_RATE,
        "guidance_scale": 3.0,
    }


def matrices(work: Work) -> tuple[np.ndarray, np.ndarray]:
    """Two factors, (rows, inner) and (inner, columns)."""
    rows, inner, columns = work.grid
    rng = np.random.default_rng(0)
    left = rng.standard_normal((rows, inner), dtype=np.float32)
    return left, rng.standard_normal((inner, columns), dtype=np.float32)


def operations(facts: TransformerFacts, tokens: int, text: int, batch: int = 1, timesteps: int = 1) -> int:
    """Multiply-adds of the matrix products in one transformer call, counted exactly; twice as many FLOP.

    Norms, rotation, softmax, GELU and the gathered modulation are not counted. The projected text is as wide
    as the transformer in every release.
    """
    width = facts.width
    square = width * width
    patchify = tokens * (facts.in_channels + facts.out_channels) * width
    time = timesteps * (TIME_CHANNELS * width + square + MODULATION_ROWS * square)
    caption = text * (facts.caption_channels * width + square)
    self_attention = 4 * tokens * square + 2 * tokens * tokens * width
    cross_attention = 2 * tokens * square + 2 * text * square + 2 * tokens * text * width
    feed_forward = 8 * tokens * square
    block = self_attention + cross_attention + feed_forward
    return batch * (patchify + time + caption + facts.layers * block)
