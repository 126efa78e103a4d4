"""Trains text encoder and transformer together by the rectified-flow loss, on the autoencoder's latents.

One in ten captions is dropped for classifier-free guidance. A given first frame, and given frames later in
the video, stand among the tokens as the runtime puts them, at timestep 0 and with the runtime's rotary
coordinates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise

import latents as kept
import networks
import numpy as np
import scenes
import tokens
import torch
from latents import Encoded
from torch import Tensor, nn
from training import Ema, Job

from ltxrt.runtime.sampling import rope
from ltxrt.runtime.sampling.latents import LatentShape

NO_CAPTION = 0.1
FIRST_FRAME, KEYFRAMES = 0.3, 0.2  # of the batches
SHIFT = 2.5  # of the noise levels towards 1, as the schedule shifts them
IMAGE_NOISE = 0.15  # the pipeline's `image_noise_scale`, times sigma squared
# What a dropped caption becomes: nothing, or the releases' negative prompt, which guidance will be given.
DROPPED = ("", "worst quality, inconsistent motion, blurry, jittery, distorted")


class Model(nn.Module):
    """Text encoder and transformer: one optimiser, one state."""

    def __init__(self) -> None:
        super().__init__()
        networks.make_trainable()
        self.text, self.dit = networks.text_module(), networks.transformer_module()
        networks.initialise(self.text, seed=2)
        networks.initialise(self.dit, seed=3)

    @property
    def device(self) -> torch.device:
        return self.dit.scale_shift_table.device


@dataclass(frozen=True)
class Batch:
    """clean and noisy tokens (B,E+N,C), their timesteps (B,2), index and whether they are learnt (B,E+N)."""

    clean: Tensor
    noise: Tensor
    sigma: Tensor
    given: Tensor
    coords: np.ndarray
    texts: list[str]

    def to(self, device: torch.device) -> Batch:
        tensors = {n: getattr(self, n).to(device) for n in ("clean", "noise", "sigma", "given")}
        return replace(self, **tensors)


@lru_cache(maxsize=32)
def coordinates(shape: tuple[int, int, int], start: int) -> np.ndarray:
    return rope.coordinates(LatentShape(*shape), kept.FRAME_RATE, True, networks.vae_facts(), start)


def make_batch(
    data: Encoded, chosen: np.ndarray, rng: np.random.Generator, generator: torch.Generator
) -> Batch:
    videos = torch.from_numpy(data.videos[chosen].astype(np.float32))
    shape = (videos.shape[2], videos.shape[3], videos.shape[4])
    clean, coords = videos.flatten(2).mT, coordinates(shape, 0)
    given = torch.zeros(clean.shape[:2], dtype=torch.bool)
    kind = rng.uniform()
    if kind < FIRST_FRAME + KEYFRAMES / 2:
        given[:, : shape[1] * shape[2]] = True
    if FIRST_FRAME <= kind < FIRST_FRAME + KEYFRAMES:
        which = int(rng.integers(2))
        still = torch.from_numpy(data.stills[chosen][:, :, which : which + 1].astype(np.float32))
        own = still.flatten(2).mT
        clean, coords = torch.cat([own, clean], 1), np.concatenate(
            [coordinates((1, *shape[1:]), kept.still_frames(data.bucket)[which]), coords], axis=1
        )  # fmt: skip
        given = torch.cat([torch.ones(own.shape[:2], dtype=torch.bool), given], 1)
    uniform = torch.rand(len(chosen), generator=generator)
    sigma = SHIFT * uniform / (1 + (SHIFT - 1) * uniform)
    noise = torch.randn(clean.shape, generator=generator)
    return Batch(clean, noise, sigma, given, coords, _captions(data, chosen, rng))


def _captions(data: Encoded, chosen: np.ndarray, rng: np.random.Generator) -> list[str]:
    texts = [scenes.caption(kept.scene_of(int(data.seeds[i]), data.bucket), rng) for i in chosen]
    return [str(rng.choice(DROPPED)) if rng.uniform() < NO_CAPTION else text for text in texts]


def velocity(model: Model, batch: Batch, noisy: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    """The transformer's answer to noisy tokens (B,E+N,C)."""
    config, device = networks.TRANSFORMER, model.device
    mask = mask.to(device)
    context = model.text(ids.to(device), mask)
    cos, sin = rope.tables(batch.coords, config.width, config.rope_theta, config.rope_max_positions)
    keep = torch.ones(config.layers, 3, len(noisy), dtype=torch.bool, device=device)
    timesteps = torch.stack([batch.sigma, torch.zeros_like(batch.sigma)], 1)
    return model.dit(
        noisy, timesteps, batch.given.long(), context, mask.bool(),
        torch.from_numpy(cos).to(device), torch.from_numpy(sin).to(device), keep,
    )  # fmt: skip


def loss_of(model: Model, batch: Batch, tokenizer: tokens.Tokenizer) -> Tensor:
    """Mean squared error of the velocity, noise − clean, over the tokens that were not given."""
    sigma = batch.sigma[:, None, None]
    noisy = (1 - sigma) * batch.clean + sigma * batch.noise
    held = batch.clean + IMAGE_NOISE * sigma**2 * batch.noise
    noisy = torch.where(batch.given[..., None], held, noisy)
    found = velocity(model, batch, noisy, *tokens.encode(tokenizer, batch.texts))
    error = (found - (batch.noise - batch.clean)).square().mean(-1)
    return error[~batch.given].mean()


@torch.no_grad()
def sample(
    model: Model, text: str, shape: tuple[int, int, int], steps: int = 20, scale: float = 3.0
) -> Tensor:
    """Latents (1,C,f,h,w) of a caption, by Euler steps with classifier-free guidance; for looking while
    training.
    """
    ids, mask = tokens.encode(tokens.make(), [text, DROPPED[1]])
    noise = torch.randn((1, networks.LATENTS, *shape), generator=torch.Generator().manual_seed(0))
    latents, count = noise.flatten(2).mT.to(model.device), int(np.prod(shape))
    uniform = torch.linspace(1, 0, steps + 1)
    sigmas = SHIFT * uniform / (1 + (SHIFT - 1) * uniform)
    for now, after in pairwise(sigmas.tolist()):
        both = latents.expand(2, -1, -1)
        sigma = torch.full((2,), now)
        none = torch.zeros(2, count, dtype=torch.bool)
        batch = Batch(both, both, sigma, none, coordinates(shape, 0), []).to(model.device)
        positive, negative = velocity(model, batch, both, ids, mask).split(1)
        latents = latents + (after - now) * (negative + scale * (positive - negative))
    return latents.mT.unflatten(2, shape)


def train(
    job: Job,
    data: list[Encoded],
    steps: int,
    rate: float = 1e-3,
    watch: Callable[[Model, int], None] | None = None,
) -> Model:
    """Train for `steps` in all, going on from what the job's folder holds; returns the averaged weights.

    `watch` is given the averaged model now and then.
    """
    model, tokenizer = Model().to(job.device), tokens.make()
    trained = list(model.parameters())
    optimiser = torch.optim.AdamW(trained, rate, betas=(0.9, 0.98), weight_decay=1e-2)
    ema = Ema(model, 0.9995)
    start = job.resume("dit", model, optimiser, ema)
    for step in range(start, steps):
        for group in optimiser.param_groups:
            group["lr"] = job.rate(rate, step, steps)
        rng, generator = job.random(step)
        batch = make_batch(*next(kept.order(data, rng)), rng, generator).to(job.device)
        loss = loss_of(model, batch, tokenizer)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        ema.update(model)
        job.note("dit", step, loss=loss.item(), norm=float(norm))
        if job.due(step, steps):
            job.save("dit", step + 1, model, optimiser, ema)
            with ema.used(model):
                if watch:
                    watch(model, step + 1)
    ema.copy_to(model)
    return model
