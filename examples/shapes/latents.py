"""The second stage's data: scenes encoded once by the trained autoencoder, kept on disk with their seeds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import networks
import numpy as np
import scenes
import torch
from numpy.typing import NDArray
from torch import Tensor
from training import Job, prefetch

FRAME_RATE = 25.0
ASPECT = 1.5


@dataclass(frozen=True)
class Bucket:
    """Videos of one size: how many are kept, how often one is drawn, and how many make a batch."""

    frames: int
    height: int
    count: int
    share: float
    batch: int

    @property
    def name(self) -> str:
        return f"{self.frames}x{self.height}"


# The small size that most videos have, longer ones, and the second pass's size.
BUCKETS = (Bucket(25, 192, 5000, 0.75, 16), Bucket(57, 192, 1200, 0.15, 8), Bucket(25, 384, 800, 0.10, 4))


@dataclass(frozen=True)
class Encoded:
    """Latents (n,C,f,h,w) of videos and (n,C,2,h,w) of their middle and last frames alone; one seed each."""

    bucket: Bucket
    videos: NDArray[np.float16]
    stills: NDArray[np.float16]
    seeds: NDArray[np.int64]


def scene_of(seed: int, bucket: Bucket) -> scenes.Scene:
    return scenes.sample(np.random.default_rng(seed), ASPECT, bucket.frames / FRAME_RATE)


def still_frames(bucket: Bucket) -> tuple[int, int]:
    """The frames that are encoded alone as well: one near the middle, and the last."""
    return bucket.frames // 16 * 8, bucket.frames - 1


@torch.no_grad()
def encode(model: networks.Autoencoder, job: Job) -> list[Encoded]:
    """Every bucket's latents: read where they are there, made otherwise."""
    return [_bucket(model, job, number, bucket) for number, bucket in enumerate(BUCKETS)]


def _bucket(model: networks.Autoencoder, job: Job, number: int, bucket: Bucket) -> Encoded:
    path = job.folder / f"latents-{bucket.name}.npz"
    if path.exists():
        kept = np.load(path)
        return Encoded(bucket, kept["videos"], kept["stills"], kept["seeds"])
    first = 1_000_000 * (number + 1)
    seeds = np.arange(first, first + bucket.count)
    videos, stills = [], []
    for pixels in prefetch(partial(_pixels, bucket), range(first, first + bucket.count), job.workers):
        video, still = _one(model, torch.from_numpy(pixels)[None].to(job.device), bucket)
        videos.append(video)
        stills.append(still)
    temporary = path.with_name(f".{path.stem}.part.npz")
    np.savez(temporary, videos=np.stack(videos), stills=np.stack(stills), seeds=seeds)
    temporary.replace(path)
    return Encoded(bucket, np.stack(videos), np.stack(stills), seeds)


def _pixels(bucket: Bucket, seed: int) -> NDArray[np.float32]:
    return scenes.render(scene_of(seed, bucket), bucket.frames, bucket.height, FRAME_RATE)


def _one(
    model: networks.Autoencoder, pixels: Tensor, bucket: Bucket
) -> tuple[NDArray[np.float16], NDArray[np.float16]]:
    """Latents of a video (1,3,F,H,W), and of its still frames."""
    video = model.encode(pixels)[0]
    stills = torch.cat([model.encode(pixels[:, :, k : k + 1])[0] for k in still_frames(bucket)], dim=1)
    return video.cpu().numpy().astype(np.float16), stills.cpu().numpy().astype(np.float16)


def order(data: list[Encoded], rng: np.random.Generator) -> Iterator[tuple[Encoded, NDArray[np.int64]]]:
    """Without end: a bucket by its share, and as many of its videos as make a batch."""
    shares = np.array([e.bucket.share for e in data])
    while True:
        chosen = data[int(rng.choice(len(data), p=shares / shares.sum()))]
        yield chosen, rng.integers(0, len(chosen.seeds), chosen.bucket.batch)
