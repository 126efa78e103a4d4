"""Trains the latent upsampler: latents of a scene at the small size to those of the same scene at twice the
size.
"""

from __future__ import annotations

import latents as kept
import networks
import numpy as np
import scenes
import torch
from torch import Tensor
from training import Ema, Job

SMALL, LARGE = 192, 384  # pixels high
COUNT, FRAMES, BATCH = 400, 25, 4


@torch.no_grad()
def pairs(model: networks.Autoencoder, job: Job) -> tuple[Tensor, Tensor]:
    """Latents (n,C,f,h,w) of the same scenes at both sizes: read where they are there, made otherwise."""
    path = job.folder / "latents-pairs.npz"
    if not path.exists():
        found: dict[int, list[np.ndarray]] = {SMALL: [], LARGE: []}
        for seed in range(COUNT):
            scene = scenes.sample(
                np.random.default_rng(9_000_000 + seed), kept.ASPECT, FRAMES / kept.FRAME_RATE
            )
            for height, values in found.items():
                pixels = scenes.render(scene, FRAMES, height, kept.FRAME_RATE)
                found_one = model.encode(torch.from_numpy(pixels)[None].to(job.device))[0]
                values.append(found_one.cpu().numpy().astype(np.float16))
        temporary = path.with_name(".latents-pairs.part.npz")
        np.savez(temporary, small=np.stack(found[SMALL]), large=np.stack(found[LARGE]))
        temporary.replace(path)
    data = np.load(path)
    small, large = (torch.from_numpy(data[name].astype(np.float32)) for name in ("small", "large"))
    return small, large


def train(job: Job, autoencoder: networks.Autoencoder, steps: int, rate: float = 2e-3) -> torch.nn.Module:
    """Train for `steps` in all, going on from what the job's folder holds; returns the averaged weights."""
    small, large = pairs(autoencoder, job)
    model = networks.upsampler_module()
    networks.initialise(model, seed=4)
    statistics, own = autoencoder.per_channel_statistics, model.per_channel_statistics
    own.load_state_dict(statistics.state_dict())
    model.to(job.device)
    trained = [p for n, p in model.named_parameters() if "per_channel" not in n]
    optimiser = torch.optim.AdamW(trained, rate, weight_decay=1e-4)
    ema = Ema(model, 0.999)
    start = job.resume("upsampler", model, optimiser, ema)
    for step in range(start, steps):
        for group in optimiser.param_groups:
            group["lr"] = job.rate(rate, step, steps, warm=100)
        rng, _ = job.random(step)
        chosen = rng.integers(0, len(small), BATCH)
        error = model(small[chosen].to(job.device)) - large[chosen].to(job.device)
        loss = error.square().mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        ema.update(model)
        job.note("upsampler", step, loss=loss.item())
        if job.due(step, steps):
            job.save("upsampler", step + 1, model, optimiser, ema)
    ema.copy_to(model)
    return model
