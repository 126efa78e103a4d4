"""Trains the autoencoder on windows of rendered scenes; the first of `train.py`'s stages.

The decoder is conditioned on a timestep and sees latents with that much noise in them, as the releases' do,
so that the
pipeline's decode noise is what it was trained for.
"""

from __future__ import annotations

from dataclasses import dataclass

import networks
import numpy as np
import scenes
import torch
from torch import Tensor
from training import Ema, Job, prefetch, psnr

# (frames, height, width, batch) of windows; long and wide ones teach borders and motion, single frames the
# causal start.
WINDOWS = ((9, 128, 128, 2), (17, 96, 96, 2), (25, 96, 64, 2), (9, 192, 96, 2), (1, 192, 192, 4))
HEIGHTS = (128, 384)  # pixels that a whole scene is drawn high, from which the window is cut
MOST_NOISE = 0.15  # of the latents that the decoder sees; its timestep is twice that
SPREAD = 1e-3  # pull of the latents towards zero mean and unit deviation, in which noise is measured


@dataclass(frozen=True)
class Result:
    """What a validation found: decibels of whole unseen clips and of single unseen frames."""

    clips: float
    frames: float


def window(rng: np.random.Generator, frames: int, height: int, width: int) -> np.ndarray:
    """A random window (3,frames,height,width) of a random scene."""
    tall = int(rng.integers(max(HEIGHTS[0], height), HEIGHTS[1] + 1))
    aspect = max(1.5, width / tall)
    scene = scenes.sample(rng, aspect, max(frames, 25) / 25.0)
    x, y, _, _ = scenes.place(scene.things[0], float(rng.uniform(0, frames / 25.0)))
    # Three windows in four hold the object: backgrounds are learnt soon.
    if rng.uniform() < 0.75:
        top = int(np.clip(y * tall - height * rng.uniform(0.1, 0.9), 0, tall - height))
        left = int(np.clip(x * tall - width * rng.uniform(0.1, 0.9), 0, max(int(tall * aspect) - width, 0)))
    else:
        top = int(rng.integers(0, tall - height + 1))
        left = int(rng.integers(0, max(int(tall * aspect) - width, 0) + 1))
    return scenes.render(scene, frames, tall, 25.0, (top, left, height, width))


def batch(seed: int) -> np.ndarray:
    """A batch (n,3,frames,height,width) in −1..1 of windows of one size."""
    rng = np.random.default_rng(seed)
    frames, height, width, count = WINDOWS[int(rng.integers(len(WINDOWS)))]
    return np.stack([window(rng, frames, height, width) for _ in range(count)])


def loss_of(model: networks.Autoencoder, pixels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The loss of a batch, and its mean squared error in pixels of −1..1."""
    latents = model.encode(pixels)
    share = (torch.rand(len(pixels), generator=generator) * MOST_NOISE).to(pixels.device)
    noise = torch.randn(latents.shape, generator=generator).to(pixels.device)
    weight = share[:, None, None, None, None]
    decoded = model.decode(latents * (1 - weight) + noise * weight, 2 * share)
    error = decoded - pixels
    squared = error.square().mean()
    sharp = sum((error.diff(dim=axis)).abs().mean() for axis in (3, 4))
    pull = latents.square().mean() - latents.var(dim=(0, 2, 3, 4)).clamp(min=1e-4).log().mean()
    return squared + 0.2 * error.abs().mean() + 0.1 * sharp + SPREAD * pull, squared.detach()


@torch.no_grad()
def validate(model: networks.Autoencoder, count: int = 6) -> Result:
    device = next(model.parameters()).device
    rng = np.random.default_rng(123)
    clips, frames = [], []
    for _ in range(count):
        scene = scenes.sample(rng, 1.5, 1.0, exam=True)
        pixels = torch.from_numpy(scenes.render(scene, 25, 192, 25.0))[None].to(device)
        for found, part in ((clips, pixels), (frames, pixels[:, :, :1])):
            decoded = model.decode(model.encode(part), torch.full((1,), 0.05, device=device)).clamp(-1, 1)
            found.append(psnr(part, decoded))
    return Result(float(np.mean(clips)), float(np.mean(frames)))


@torch.no_grad()
def set_statistics(model: networks.Autoencoder, count: int = 64) -> None:
    """Measure the latents' mean and deviation per channel, and write them where a checkpoint keeps them."""
    device = next(model.parameters()).device
    rng = np.random.default_rng(7)
    values = []
    for _ in range(count):
        scene = scenes.sample(rng, 1.5, 1.0)
        pixels = torch.from_numpy(scenes.render(scene, 25, 192, 25.0))[None].to(device)
        values.append(model.encoder(pixels).movedim(1, 0).flatten(1))
    flat = torch.cat(values, dim=1)
    statistics = model.per_channel_statistics
    getattr(statistics, "mean-of-means").copy_(flat.mean(1))
    getattr(statistics, "std-of-means").copy_(flat.std(1))


def train(job: Job, steps: int, rate: float = 1e-3) -> networks.Autoencoder:
    """Train for `steps` in all, going on from what the job's folder holds; returns the averaged weights."""
    model = networks.Autoencoder()
    networks.initialise(model, seed=1)
    model.to(job.device)
    trained = [p for n, p in model.named_parameters() if "per_channel" not in n and "multiplier" not in n]
    optimiser = torch.optim.AdamW(trained, rate, betas=(0.9, 0.99), weight_decay=1e-4)
    ema = Ema(model, 0.999)
    start = job.resume("vae", model, optimiser, ema)
    seeds = range(job.number(start), job.number(steps))
    for step, pixels in zip(range(start, steps), prefetch(batch, seeds, job.workers)):
        for group in optimiser.param_groups:
            group["lr"] = job.rate(rate, step, steps)
        _, generator = job.random(step)
        loss, squared = loss_of(model, torch.from_numpy(pixels).to(job.device), generator)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        ema.update(model)
        job.note("vae", step, loss=loss.item(), mse=squared.item(), norm=float(norm))
        if job.due(step, steps):
            job.save("vae", step + 1, model, optimiser, ema)
            with ema.used(model):
                found = validate(model)
            job.log("vae", step + 1, f"clips {found.clips:.2f} dB, single frames {found.frames:.2f} dB")
    ema.copy_to(model)
    set_statistics(model)
    return model
