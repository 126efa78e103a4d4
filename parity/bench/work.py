"""What the workers are asked to do, and the inputs that all of them are given. NumPy only."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ltxrt.engines.families.ltxv.facts import Facts, TransformerFacts, VaeFacts
from ltxrt.runtime.sampling import rope
from ltxrt.runtime.sampling.latents import LatentShape

Grid = tuple[int, int, int]  # latent frames, height, width
FRAME_RATE = 25.0
PROMPT = "waves break on a rocky shore, the camera drifts to the left"
NEGATIVE = "blurry"


@dataclass(frozen=True)
class Contender:
    """Who runs the work. kind: `ltxrt`, `torch`, or a library that multiplies matrices.

    backend: of ours; device: of torch; compiled: through torch.compile.
    """

    name: str
    kind: str
    backend: str = ""
    device: str = "cpu"
    compiled: bool = False


@dataclass(frozen=True)
class Work:
    """One piece of work. kind: a component, `t2v`, `i2v` or `matmul`.

    model: the folder with `bundle/` and `diffusers/`; grid: the latents' size, or the matrices'; text: text
    tokens; steps: of a video; keep_loaded: whether our engines outlive a video; calls: how many of a
    component are to be expected, which our runtime is told when it loads.
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


@dataclass(frozen=True)
class Outcome:
    """What a repetition made, and the seconds of its stages where it has some."""

    array: np.ndarray
    stages: dict[str, float]


Runner = Callable[[], Outcome]


def grid_of(tokens: int) -> Grid:
    """Latent frames, height and width of `tokens` cells, as near to each other as the number allows."""
    sides = [d for d in range(1, tokens + 1) if tokens % d == 0]
    pairs = itertools.combinations_with_replacement(sides, 2)
    whole = [(a, b, tokens // (a * b)) for a, b in pairs if tokens % (a * b) == 0 and tokens // (a * b) >= b]
    return min(whole, key=lambda grid: grid[2] - grid[0])


def transformer_feed(facts: Facts, work: Work) -> dict[str, np.ndarray]:
    """By the contract's names: one sample, one timestep, all text tokens seen, nothing perturbed.

    Coordinates are not causal: diffusers' transformer makes its own, and never makes causal ones.
    """
    transformer, vae = _parts(facts)
    tokens, rng = int(np.prod(work.grid)), np.random.default_rng(0)
    coordinates = rope.coordinates(LatentShape(*work.grid), FRAME_RATE, False, vae)
    cos, sin = rope.tables(
        coordinates, transformer.width, transformer.rope_theta, transformer.rope_max_positions
    )
    text = (1, work.text, transformer.caption_channels)
    return {
        "latents": rng.standard_normal((1, tokens, transformer.in_channels), dtype=np.float32),
        "timesteps": np.full((1, 1), 0.7, np.float32),
        "timestep_index": np.zeros((1, tokens), np.int64),
        "context": rng.standard_normal(text, dtype=np.float32),
        "context_mask": np.ones((1, work.text), np.bool_),
        "rope_cos": cos,
        "rope_sin": sin,
        "perturbation_mask": np.ones((transformer.layers, 3, 1), np.bool_),
    }


def component_feed(facts: Facts, work: Work) -> dict[str, np.ndarray]:
    """By the contract's names, for any component."""
    rng = np.random.default_rng(0)
    if work.kind == "transformer":
        return transformer_feed(facts, work)
    if work.kind == "text_encoder":
        vocabulary = facts.text_encoder.vocab_size if facts.text_encoder else 2
        ids = rng.integers(2, max(3, vocabulary), (1, work.text))
        return {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    _, vae = _parts(facts)
    if work.kind == "vae_encoder":
        return {"pixels": picture(LatentShape(*work.grid), vae)[None]}
    latents = rng.standard_normal((1, vae.latent_channels, *work.grid), dtype=np.float32)
    extra: dict[str, np.ndarray] = {"timestep": np.full(1, 0.05, np.float32)}
    return {"latents": latents, **(extra if vae.timestep_conditioning else {})}


def picture(shape: LatentShape, vae: VaeFacts) -> np.ndarray:
    """Pixels (3,F,H,W) in −1..1 of a latent shape."""
    video = shape.video(vae)
    size = (3, video.num_frames, video.height, video.width)
    return np.tanh(np.random.default_rng(5).standard_normal(size, dtype=np.float32))


def video_options(work: Work, vae: VaeFacts) -> dict[str, Any]:
    """A request's fields that have the same name in diffusers' pipelines."""
    video = LatentShape(*work.grid).video(vae)
    return {
        "prompt": PROMPT,
        "negative_prompt": NEGATIVE,
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


def _parts(facts: Facts) -> tuple[TransformerFacts, VaeFacts]:
    if facts.transformer is None or facts.vae is None:
        raise ValueError("the benchmark's bundles have a transformer and say what their autoencoder is")
    return facts.transformer, facts.vae
