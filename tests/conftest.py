"""What all tests share: tiny random checkpoints, their bundles, the same weights in the reference's modules.

Everything is made once per session; with pytest-xdist, once for all workers.
"""

import dataclasses
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, LTXPipeline
from diffusers.loaders.single_file_utils import convert_ltx_transformer_checkpoint_to_diffusers
from safetensors.torch import load_file
from transformers import T5EncoderModel, T5TokenizerFast

from ltxrt.engines.storage.files import sha256
from ltxrt.export.ltxv import versions
from ltxrt.export.ltxv.config import UpsamplerConfig
from ltxrt.parity.reference.diffusers import (
    t5_config,
    to_diffusers_vae,
    transformer,
    transformer_config,
    vae,
    vae_config,
)
from ltxrt.parity.synthetic import checkpoint as synthetic
from ltxrt.parity.synthetic import models as synthetic_models


@pytest.fixture(scope="session", autouse=True)
def interruptible():
    """A shell starts what runs in its background with SIGINT ignored, which every process inherits."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def reference():
    return SimpleNamespace(
        transformer_config=transformer_config,
        vae_config=vae_config,
        transformer=transformer,
        vae=vae,
        t5_config=t5_config,
        to_diffusers_vae=to_diffusers_vae,
    )


LONGEST = ("test_compile.py", "test_check.py", "test_quantise.py", "test_build.py", "test_parity.py")


def pytest_collection_modifyitems(items):
    """The longest files first: files are handed to workers in order, and nobody should wait for the last."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory):
    """One folder for all workers of the session."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@contextmanager
def made_once(target):
    """Yield a folder to fill, or None where it was filled before; it appears as `target` when whole."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.exists():
            yield None
            return
        work = target.with_suffix(".work")
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        yield work
        work.rename(target)


@pytest.fixture(scope="session")
def tiny_checkpoint(shared_folder):
    """version → folder with `model.safetensors`, the official single file, and `t5/`."""

    def make(version):
        target = shared_folder / f"checkpoint-{version.replace('.', '_')}"
        with made_once(target) as work:
            if work:
                models = synthetic_models.tiny(version)
                file = work / "model.safetensors"
                synthetic.write_official(file, models.transformer, models.vae, models.scheduler)
                synthetic.write_text_encoder(work / "t5", models.text_encoder)
        return target

    return make


@pytest.fixture(scope="session")
def tiny_bundle(shared_folder, tiny_checkpoint):
    """version → its fp32 bundle with every component, made by the command that users run."""

    def make(version):
        target = shared_folder / f"bundle-{version.replace('.', '_')}"
        with made_once(target) as work:
            if work:
                checkpoint = tiny_checkpoint(version)
                command = [sys.executable, "-m", "ltxrt.export.cli", "onnx", checkpoint / "model.safetensors"]
                options = ["--text-encoder", checkpoint / "t5", "--model-version", version, "--output", work]
                subprocess.run([*command, *options], check=True, capture_output=True)
        return target

    return make


UPSAMPLERS = {
    "latent_upsampler": UpsamplerConfig(16, 64, 2, temporal=False),
    "temporal_upsampler": UpsamplerConfig(16, 64, 2, temporal=True),
}


@pytest.fixture(scope="session")
def tiny_upsampler(shared_folder):
    """component → an official file of a small latent upsampler for the tiny checkpoints."""

    def make(component):
        target = shared_folder / f"checkpoint-{component}"
        with made_once(target) as work:
            if work:
                synthetic.write_upsampler(work / "upsampler.safetensors", UPSAMPLERS[component])
        return target / "upsampler.safetensors"

    return make


@pytest.fixture(scope="session")
def two_pass_bundle(shared_folder, tiny_bundle, tiny_checkpoint, tiny_upsampler):
    """The 0.9.5 bundle with both latent upsamplers."""
    target = shared_folder / "bundle-two-passes"
    with made_once(target) as work:
        if work:
            shutil.copytree(tiny_bundle("0.9.5"), work, dirs_exist_ok=True)
            checkpoint = tiny_checkpoint("0.9.5") / "model.safetensors"
            command = [sys.executable, "-m", "ltxrt.export.cli", "onnx", checkpoint, "--output", work]
            for component in UPSAMPLERS:
                command += ["--upsampler", tiny_upsampler(component), "--component", component]
            subprocess.run([*command, "--model-version", "0.9.5"], check=True, capture_output=True)
    return target


@pytest.fixture(scope="session")
def parity_case(shared_folder):
    """`model.safetensors`, `t5/` and their `bundle/`: every component in every precision, fp8 calibrated.

    Four layers, so that two are quantised.
    """
    target = shared_folder / "parity"
    with made_once(target) as work:
        if work:
            models = synthetic_models.tiny("0.9.5")
            dit = dataclasses.replace(models.transformer, layers=4)
            synthetic.write_official(work / "model.safetensors", dit, models.vae, models.scheduler)
            synthetic.write_text_encoder(work / "t5", models.text_encoder)
            (work / "prompts.txt").write_text("a lighthouse in fog\nwaves on a shore\n")
            export = ["ltxrt.export.cli", "onnx", work / "model.safetensors", "--model-version", "0.9.5"]
            export += ["--output", work / "bundle"]
            calibrate = [
                "ltxrt.parity.calibrate",
                "--bundle",
                work / "bundle",
                "--output",
                work / "scales.json",
            ]
            calibrate += [
                "--prompts",
                work / "prompts.txt",
                "--height",
                64,
                "--width",
                96,
                "--num-frames",
                17,
            ]
            fp8 = [*export, "--component", "transformer", "--scales", work / "scales.json", "--precision"]
            for command in (
                *(
                    [*export, "--text-encoder", work / "t5", "--precision", p]
                    for p in ("fp32", "fp16", "bf16")
                ),
                [*calibrate, "--steps", 4],
                *([*fp8, precision] for precision in ("fp8", "fp8-fp16")),
            ):
                subprocess.run([sys.executable, "-m", *map(str, command)], check=True, capture_output=True)
    return target


@pytest.fixture(scope="session")
def diffusers_models(tiny_checkpoint):
    """version → diffusers' and transformers' own modules with the checkpoint's weights."""

    def make(version):
        folder, models = tiny_checkpoint(version), synthetic_models.tiny(version)
        tensors = load_file(folder / "model.safetensors")
        graph = versions.version(version).vae_graph
        dit, autoencoder = transformer(models.transformer), vae(graph, models.vae)
        names = {n: t for n, t in tensors.items() if n.startswith("model.diffusion_model.")}
        dit.load_state_dict(convert_ltx_transformer_checkpoint_to_diffusers(names), strict=True)
        names = {n: t for n, t in tensors.items() if n.startswith("vae.")}
        autoencoder.load_state_dict(to_diffusers_vae(names, graph), strict=True)
        text_encoder = T5EncoderModel.from_pretrained(folder / "t5", dtype=torch.float32).eval()
        return SimpleNamespace(transformer=dit, vae=autoencoder, text_encoder=text_encoder)

    return make


@pytest.fixture(scope="session")
def record_again():
    """Make the manifest that of an export that wrote these files: damage is seen by their hashes."""

    def record(folder, component, precision):
        manifest = json.loads((folder / "bundle.json").read_text())
        graph = manifest["components"][component][precision]
        for file in (graph["file"], *graph["data"]):
            path = folder / file["path"]
            file.update(bytes=path.stat().st_size, sha256=sha256(path))
        (folder / "bundle.json").write_text(json.dumps(manifest))

    return record


def scheduler(version):
    """The scheduler that diffusers' folders of these releases carry."""
    if versions.version(version).scheduler.shift is None:
        return FlowMatchEulerDiscreteScheduler(shift=1.0)
    return FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True,
        base_shift=0.95,
        max_shift=2.05,
        base_image_seq_len=1024,
        max_image_seq_len=4096,
        shift_terminal=0.1,
    )


@pytest.fixture(scope="session")
def diffusers_folder(shared_folder, tiny_checkpoint, diffusers_models):
    """version → the same weights as a diffusers folder, its transformer in several shards."""

    def make(version):
        target = shared_folder / f"diffusers-{version.replace('.', '_')}"
        with made_once(target) as work:
            if work:
                models = diffusers_models(version)
                tokenizer_file = tiny_checkpoint(version) / "t5" / "tokenizer" / "tokenizer.json"
                tokenizer = T5TokenizerFast(tokenizer_file=str(tokenizer_file), extra_ids=0)
                pipeline = LTXPipeline(
                    scheduler(version), models.vae, models.text_encoder, tokenizer, models.transformer
                )
                pipeline.save_pretrained(work)
                shutil.rmtree(work / "transformer")
                models.transformer.save_pretrained(work / "transformer", max_shard_size="100KB")
        return target

    return make
