"""Hashes of graphs, weights and frames, by which a refactoring shows that it changed no bit.

    python -m ltxrt.parity.proofs.baseline --work FOLDER --output hashes.json            # make them
    python -m ltxrt.parity.proofs.baseline --work FOLDER --compare hashes.json           # and compare

Six small checkpoints are exported in every precision, and forty videos are made of them, all through the
commands that users run. Frames, and constants that torch computes for the files of weights, depend on the
processor's kernels: its name and vector instructions are recorded beside the hashes, and on another one only
the graphs are compared, which is said. The tests compare a few with tests/parity/proofs/baseline.json.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click
import numpy as np
from PIL import Image

from ltxrt.engines.cli_base import ltxrt_command
from ltxrt.engines.errors import InputError, LtxrtError
from ltxrt.engines.host import cpuinfo
from ltxrt.engines.storage.files import atomic_write, sha256
from ltxrt.export.ltxv.config import UpsamplerConfig
from ltxrt.parity.environment import call, module
from ltxrt.parity.synthetic import checkpoint as synthetic
from ltxrt.parity.synthetic import models as synthetic_models
from ltxrt.runtime.media.write import VideoWriter

VERSIONS = ("0.9.0", "0.9.1", "0.9.5", "0.9.6-distilled", "0.9.7-dev", "0.9.8-2b-distilled")
UPSAMPLED = ("0.9.7-dev", "0.9.8-2b-distilled")  # their presets have two passes
PRECISIONS = ("fp32", "fp16", "bf16")
WEIGHTS = ".onnx.data"  # ends the names of files of weights
QUANTISED = ("fp8", "fp8-fp16")  # of the transformer alone
SMALL = ("--height", 64, "--width", 96, "--num-frames", 17)
CPU = ("--backend", "cpu", "--threads", 1, "--precision", "fp32")
PROMPT = "waves break on a rocky shore at sunset"


@dataclasses.dataclass(frozen=True)
class Run:
    """One video: which checkpoint's bundle makes it, and the options beside the prompt and the size."""

    version: str
    options: tuple[object, ...]


def _runs(media: Path) -> dict[str, Run]:
    """The forty videos, by name; `media` holds the picture and the clip that some of them are given."""
    picture, other, clip = media / "picture.png", media / "other.png", media / "clip.mp4"
    few, guided = ("--steps", 3), ("--steps", 3, "--guidance-scale", 3, "--stg-scale", 0)
    lists = (
        "--guidance-timesteps", "1,0.9,0.5", "--guidance-scale", "1,4,2", "--stg-scale", "0,1,2",
        "--rescaling-scale", "1,0.7,0.5", "--skip-block-list", "0;1;0,1", "--steps", 5,
    )  # fmt: skip
    single, large = ("--preset", "single-pass"), ("--height", 96, "--width", 160)
    runs = {f"t2v {v}": Run(v, few) for v in VERSIONS[:3]}
    runs |= {f"t2v diffusers {v}": Run(v, (*guided, "--reference", "diffusers")) for v in VERSIONS[:3]}
    runs |= {f"i2v {v}": Run(v, (*few, "--image", picture)) for v in VERSIONS[:3]}
    runs |= {
        f"i2v diffusers {v}": Run(v, (*guided, "--image", picture, "--reference", "diffusers"))
        for v in ("0.9.0", "0.9.5")
    }
    runs |= {
        f"stg {mode}": Run("0.9.5", (*few, "--stg-mode", mode))
        for mode in ("attention_values", "attention_skip", "transformer_block")
    }
    modern: dict[str, tuple[object, ...]] = {
        "guidance": guided,
        "guidance lists": lists,
        "cfg star": (*guided, "--cfg-star"),
        "guidance rescale": (*guided, "--guidance-rescale", 0.7),
        "stochastic": (*few, "--stochastic"),
        "timesteps": ("--timesteps", "1,0.9,0.4"),
        "sampler": (*few, "--sampler", "uniform"),
        "negative prompt": (*guided, "--negative-prompt", "rain"),
        "seed": (*few, "--seed", 12345),
        "noise diffusers": (*few, "--noise", "diffusers"),
        "noise bf16": (*few, "--noise-dtype", "bf16"),
        "noise cuda": (*few, "--generator", "cuda", "--gpu", "H100"),
        "no decode noise": (*few, "--decode-noise-scale", 0),
        "tone map": (*few, "--tone-map", 0.6),
        "tiles": (*few, "--vae-memory", "24MiB"),
        "strength": (*few, "--image", picture, "--image-strength", 0.6),
        "keyframes": (*few, "--condition", picture, "--condition", f"{other}@16:0.8"),
        "clip": (*few, "--condition", f"{clip}@8"),
        "plain preparation": (*few, "--image", picture, "--preparation", "plain"),
        "diffusers-condition": (*guided, "--condition", f"{other}@8", "--reference", "diffusers-condition"),
        "video to video": ("--steps", 5, "--input-video", clip, "--denoise-strength", 0.6),
        "frame rate": (*few, "--frame-rate", 12),
    }
    runs |= {name: Run("0.9.5", options) for name, options in modern.items()}
    runs |= {
        "distilled": Run("0.9.6-distilled", ()),
        "two passes dev": Run("0.9.7-dev", large),
        "two passes distilled": Run("0.9.8-2b-distilled", (*large, "--image", picture)),
        "single pass": Run("0.9.8-2b-distilled", single),
    }
    return runs


@ltxrt_command("baseline")
@click.option("--work", type=click.Path(path_type=Path), required=True, help="Folder for what is made.")
@click.option("--output", type=click.Path(path_type=Path), help="Write the hashes here.")
@click.option("--compare", type=click.Path(path_type=Path), help="Compare; exit 1 on a difference.")
def main(work: Path, output: Path | None, compare: Path | None) -> None:
    """Hash the graphs, weights and frames of small checkpoints."""
    if output is None and compare is None:
        raise InputError("nothing to do with the hashes; give --output FILE, --compare FILE or both")
    wanted = json.loads(compare.read_text()) if compare else None
    work.mkdir(parents=True, exist_ok=True)
    found = {
        "machine": machine(),
        "graphs": graphs(work),
        "frames": frames(work),
    }
    if output is not None:
        with atomic_write(output) as temporary:
            temporary.write_text(json.dumps(found, indent=1) + "\n")
    if wanted is not None:
        report(wanted, found)


def report(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Say what differs; raises LtxrtError where anything does."""
    here = wanted["machine"] == found["machine"]
    if not here:
        of = f"hashed on {wanted['machine']}, this is {found['machine']}"
        click.echo(f"frames and files of weights were {of}: not compared")
    parts = ("graphs", "frames") if here else ("graphs",)
    differing = [
        f"{part}: {name}"
        for part in parts
        for name in sorted(wanted[part].keys() | found[part].keys())
        if wanted[part].get(name) != found[part].get(name) and (here or not name.endswith(WEIGHTS))
    ]
    for line in differing:
        click.echo(f"differs: {line}")
    if differing:
        raise LtxrtError(f"{len(differing)} hashes differ")
    click.echo(f"the same: {', '.join(f'{len(found[part])} {part}' for part in parts)}")


def machine() -> str:
    """What decides in which order floating-point sums are made: the processor and its vector instructions."""
    found = cpuinfo()
    vectors = [f for f in found.get("flags", "").split() if f.startswith(("avx", "amx", "fma"))]
    return f"{found.get('model name', 'unknown')}, {' '.join(sorted(vectors))}"


def graphs(
    work: Path,
    versions: Sequence[str] = VERSIONS,
    precisions: Sequence[str] = PRECISIONS,
    quantised: Sequence[str] = QUANTISED,
) -> dict[str, str]:
    """version/file → SHA-256, of every graph, its weights and the map of their names; exported to `work`."""
    found = {}
    for version in versions:
        bundle = _bundle(work, version, precisions, quantised)
        for path in sorted((bundle / "onnx").iterdir()):
            if not path.name.startswith("."):
                found[f"{version}/{path.relative_to(bundle).as_posix()}"] = sha256(path)
    return found


def _bundle(work: Path, version: str, precisions: Sequence[str], quantised: Sequence[str]) -> Path:
    """A bundle of the checkpoint in these precisions; kept in `work` for frames and for a second call."""
    checkpoint, bundle = work / version / "checkpoint", work / version / "bundle"
    if bundle.exists():
        return bundle
    models = synthetic_models.tiny(version)
    transformer = dataclasses.replace(models.transformer, layers=4)  # so that two blocks are quantised
    checkpoint.mkdir(parents=True, exist_ok=True)
    synthetic.write_official(checkpoint / "model.safetensors", transformer, models.vae, models.scheduler)
    synthetic.write_text_encoder(checkpoint / "t5", models.text_encoder)
    export = ["onnx", checkpoint / "model.safetensors", "--model-version", version, "--output", bundle]
    more: list[object] = ["--text-encoder", checkpoint / "t5"]
    if version in UPSAMPLED:
        upsampler = checkpoint / "upsampler.safetensors"
        synthetic.write_upsampler(upsampler, UpsamplerConfig(16, 64, 2, temporal=False))
        more += ["--upsampler", upsampler]
    for precision in precisions:
        call(module("ltxrt.export.cli", *export, *more, "--precision", precision))
    for precision in quantised:
        fp8 = ("--component", "transformer", "--precision", precision, "--uncalibrated")
        call(module("ltxrt.export.cli", *export, *fp8))
    return bundle


def frames(work: Path, names: Collection[str] | None = None) -> dict[str, str]:
    """Name of a run → SHA-256 of its frames (F,H,W,3) uint8: of all runs, or of `names`.

    The bundles are those that `graphs` has left in `work`.
    """
    media = work / "media"
    _write_media(media)
    (work / "frames").mkdir(exist_ok=True)
    runs = {name: run for name, run in _runs(media).items() if names is None or name in names}

    def one(item: tuple[str, Run]) -> tuple[str, str]:
        name, run = item
        folder = work / "frames" / name.replace(" ", "-")
        given = [str(o) for o in run.options]
        size = () if "--height" in given else SMALL[:4]
        options = [*size, *SMALL[4:], *given, *CPU, "--output", folder]
        if not folder.exists():
            bundle = work / run.version / "bundle"
            call(module("ltxrt.runtime.cli", "--bundle", bundle, "--prompt", PROMPT, *options))
        pictures = [np.asarray(Image.open(path)) for path in sorted(folder.glob("*.png"))]
        return name, hashlib.sha256(np.stack(pictures).tobytes()).hexdigest()

    with ThreadPoolExecutor(2) as pool:
        return dict(pool.map(one, runs.items()))


def _write_media(media: Path) -> None:
    """A picture, another one, and a clip of seventeen frames."""
    media.mkdir(exist_ok=True)
    y, x = np.mgrid[0:72, 0:120].astype(np.float32)

    def picture(shift: float) -> np.ndarray:
        waves = [np.sin(x / (7 + c) + y / (11 - c) + shift) for c in range(3)]
        return (np.stack(waves, axis=-1) * 100 + 128).astype(np.uint8)

    for name, shift in (("picture", 0.0), ("other", 2.0)):
        Image.fromarray(picture(shift)).save(media / f"{name}.png")
    if not (media / "clip.mp4").exists():
        with VideoWriter(media / "clip.mp4", 72, 120, 25.0, {}) as writer:
            for index in range(17):
                writer.write(picture(index / 5))


if __name__ == "__main__":
    main()
