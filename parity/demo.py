"""`make demo`: a small random-weight checkpoint to two videos, through the same commands as a real one."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import click
import numpy as np
from PIL import Image

from ltxrt.engines.cli_base import ltxrt_command
from ltxrt.engines.errors import LtxrtError
from ltxrt.engines.storage.files import atomic_write
from ltxrt.parity.environment import module
from ltxrt.parity.synthetic import checkpoint as synthetic
from ltxrt.parity.synthetic import models as synthetic_models
from ltxrt.runtime.media import read_video
from ltxrt.runtime.media.write import save_strip

VERSION = "0.9.5"
PROMPT = "waves break on a rocky shore at sunset"
SIZE = ("--height", 192, "--width", 288, "--num-frames", 57, "--steps", 8)
REAL = """
Random weights make noise: this shows that the path works, not what the model can do. With real weights:

  ltx-export onnx Lightricks/LTX-Video:ltxv-2b-0.9.6-dev-04-25.safetensors --output bundle
  ltx-run --bundle bundle --prompt "…" --output video.mp4
  ltx-run --bundle bundle --prompt "…" --image first.png --output from-image.mp4
"""


@ltxrt_command("demo")
@click.option("--output", type=click.Path(path_type=Path), default=Path("demo"), show_default=True)
def main(output: Path) -> None:
    """Make a checkpoint, export it, run text-to-video and image-to-video, and lay out their frames."""
    shutil.rmtree(output, ignore_errors=True)
    checkpoint, text_encoder = output / "checkpoint" / "random.safetensors", output / "checkpoint" / "t5"
    checkpoint.parent.mkdir(parents=True)
    models = synthetic_models.tiny(VERSION)
    synthetic.write_official(checkpoint, models.transformer, models.vae, models.scheduler)
    synthetic.write_text_encoder(text_encoder, models.text_encoder)
    image = output / "first.png"
    _write_picture(image)

    bundle = output / "bundle"
    _show("ltx-export", "onnx", checkpoint, "--text-encoder", text_encoder, "--output", bundle)
    videos = [output / "t2v.mp4", output / "i2v.mp4"]
    for video, extra in zip(videos, ((), ("--image", image))):
        _show("ltx-run", "--bundle", bundle, "--prompt", PROMPT, *extra, *SIZE, "--output", video)
    frames = [read_video(video)[0] for video in videos]
    strip = output / "strip.png"
    save_strip(np.concatenate(frames, axis=1), strip, count=6)
    click.echo(REAL)
    click.echo(f"{videos[0]} and {videos[1]} play; {strip} shows their frames, t2v above i2v")


def _show(command: str, *arguments: object) -> None:
    """Print a command as a user would type it, and run it."""
    text = [str(a) for a in arguments]
    click.echo("$ " + " ".join([command, *(repr(a) if " " in a else a for a in text)]))
    name = {"ltx-export": "ltxrt.export.cli", "ltx-run": "ltxrt.runtime.cli"}[command]
    if subprocess.run(module(name, *text), check=False).returncode != 0:
        raise LtxrtError(f"{command} failed; its message is above")


def _write_picture(path: Path) -> None:
    """A sun over a horizon: something to recognise in the first frame."""
    y, x = np.mgrid[0:192, 0:288].astype(np.float32)
    sky = np.stack([200 - y * 0.3, 120 + y * 0.2, 90 + y * 0.5], axis=-1)
    sea = np.stack([20 + 0 * y, 60 + y * 0.2, 110 + 20 * np.sin(x / 9 + y / 3)], axis=-1)
    sun = ((x - 190) ** 2 + (y - 80) ** 2 < 30**2)[..., None]
    picture = np.where((y > 110)[..., None], sea, np.where(sun, [255, 220, 120], sky))
    with atomic_write(path) as temporary:
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(temporary, "PNG")


if __name__ == "__main__":
    main()
