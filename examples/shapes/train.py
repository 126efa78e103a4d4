"""Makes the example's weights: `python examples/shapes/train.py --work FOLDER`.

Three trainings, one after the other: the autoencoder, then text encoder and transformer on its latents, then
the latent
upsampler. Interrupt it at any time; the same command goes on from the last state in FOLDER. At the end the
weights are
written beside this file, in the official layouts. `--stop-after SECONDS` ends a piece of a longer training.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

import latents
import networks
import numpy as np
import scenes
import tokens
import torch
import train_dit
import train_upsampler
import train_vae
from PIL import Image
from training import Job

from ltxrt.parity.synthetic.checkpoint import t5_config

HERE = Path(__file__).parent
SAMPLES = (
    "a red ball rolls to the right over a green field",
    "a blue square falls in the sky",
    "a yellow triangle turns on a dark background",
    "an orange ball bounces on a white background",
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--work", type=Path, required=True, help="folder for states, latents, logs and samples"
    )
    parser.add_argument("--output", type=Path, default=HERE / "weights", help="where the weights go")
    parser.add_argument("--vae-steps", type=int, default=30_000)
    parser.add_argument("--dit-steps", type=int, default=24_000)
    parser.add_argument("--upsampler-steps", type=int, default=3_000)
    parser.add_argument("--threads", type=int, help="CPU threads; torch's own number where it is not given")
    parser.add_argument("--device", default="cpu", help="cpu, or cuda where there is one")
    parser.add_argument("--workers", type=int, default=0, help="processes that draw scenes ahead; for a GPU")
    parser.add_argument("--stop-after", type=int, metavar="SECONDS", help="end by itself, to be resumed")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.stop_after:
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        signal.alarm(options.stop_after)
    try:
        run(options)
    except KeyboardInterrupt:
        sys.stdout.write(f"stopped; the same command goes on from the last state in {options.work}\n")


def run(options: argparse.Namespace) -> None:
    job = Job(options.work, options.device, options.workers)
    autoencoder = train_vae.train(job, options.vae_steps).requires_grad_(False)
    found = train_vae.validate(autoencoder)
    job.log(
        "vae", options.vae_steps, f"done: clips {found.clips:.2f} dB, single frames {found.frames:.2f} dB"
    )
    data = latents.encode(autoencoder, job)
    model = train_dit.train(
        job, data, options.dit_steps, watch=lambda m, step: picture(job, autoencoder, m, step)
    )
    upsampler = train_upsampler.train(job, autoencoder, options.upsampler_steps)

    networks.save_checkpoint(options.output / "ltxv-shapes-0.9.5.safetensors", autoencoder, model.dit)
    networks.save_text_encoder(options.output / "t5", model.text, t5_config(networks.TEXT))
    tokens.save(options.output / "t5" / "tokenizer")
    networks.save_upsampler(options.output / "ltxv-shapes-upsampler.safetensors", upsampler)
    job.log("train", options.dit_steps, f"weights are in {options.output}")


@torch.no_grad()
def picture(job: Job, autoencoder: networks.Autoencoder, model: train_dit.Model, step: int) -> None:
    """Some samples as one PNG: a row for each prompt, a real scene's reconstruction last."""
    rows = [strip(autoencoder, train_dit.sample(model, text, (4, 6, 9))) for text in SAMPLES]
    scene = scenes.sample(np.random.default_rng(5), latents.ASPECT, 1.0, exam=True)
    pixels = torch.from_numpy(scenes.render(scene, 25, 192, latents.FRAME_RATE))[None].to(job.device)
    rows.append(strip(autoencoder, autoencoder.encode(pixels)))
    Image.fromarray(np.concatenate(rows)).save(job.folder / f"samples-{step:06d}.png")


def strip(autoencoder: networks.Autoencoder, found: torch.Tensor) -> np.ndarray:
    """Five frames of decoded latents (1,C,f,h,w), side by side, (h, 5w, 3) uint8."""
    timestep = torch.full((1,), 0.05, device=found.device)
    pixels = autoencoder.decode(found, timestep)[0].clamp(-1, 1)
    chosen = pixels[:, torch.linspace(0, pixels.shape[1] - 1, 5).round().long()]
    flat = torch.cat(list(chosen.unbind(1)), dim=-1).permute(1, 2, 0)
    return ((flat + 1) * 127.5).round().byte().cpu().numpy()


if __name__ == "__main__":
    main()
