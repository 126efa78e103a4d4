"""What all tests share: tiny random checkpoints, their bundles, the same weights in the reference's modules.

Everything is made once per session; with pytest-xdist, once for all workers.
"""

import fcntl
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from diffusers import (
    AutoencoderKLLTXVideo,
    FlowMatchEulerDiscreteScheduler,
    LTXPipeline,
    LTXVideoTransformer3DModel,
)
from diffusers.loaders.single_file_utils import (
    convert_ltx_transformer_checkpoint_to_diffusers,
    convert_ltx_vae_checkpoint_to_diffusers,
)
from safetensors.torch import load_file
from transformers import T5Config, T5EncoderModel, T5TokenizerFast

from ltxrt.export import synthetic, synthetic_models, versions
from ltxrt.export.config import UpsamplerConfig


def transformer_config(config):
    return {
        "num_layers": config.layers,
        "num_attention_heads": config.heads,
        "attention_head_dim": config.head_size,
        "in_channels": config.in_channels,
        "out_channels": config.out_channels,
        "cross_attention_dim": config.cross_attention_width,
        "caption_channels": config.caption_channels,
    }


def vae_config(graph, config):
    """§1.2 of the facts: the diffusers fields per graph, with `config`'s widths and layer counts."""
    encoder = [b for b in config.encoder_blocks if b.kind == "res"]
    decoder = [b for b in config.decoder_blocks if b.kind == "res"]
    strided = graph != "0.9.5"
    plain = graph == "0.9.0"
    widths = [b.in_channels for b in encoder]
    ups = [b for b in config.decoder_blocks if b.kind == "depth_to_space"]
    return {
        "latent_channels": config.latent_channels,
        "block_out_channels": widths[:-1] if strided else widths,
        "layers_per_block": [b.layers for b in encoder],
        "down_block_types": ["LTXVideoDownBlock3D" if strided else "LTXVideo095DownBlock3D"] * 4,
        "spatio_temporal_scaling": [True, True, True, not strided],
        "downsample_type": ["conv"] * 4
        if strided
        else ["spatial", "temporal", "spatiotemporal", "spatiotemporal"],
        "decoder_block_out_channels": [b.in_channels for b in decoder[:0:-1]]
        if plain
        else [b.in_channels for b in ups[::-1]],
        "decoder_layers_per_block": [b.layers for b in decoder[::-1]],
        "decoder_spatio_temporal_scaling": [True, True, True, False] if plain else [True] * 3,
        "decoder_inject_noise": [b.inject_noise for b in decoder[::-1]],
        "upsample_residual": [False] * 4 if plain else [True] * 3,
        "upsample_factor": [1] * 4 if plain else [2] * 3,
        "timestep_conditioning": not plain,
        "spatial_compression_ratio": 32,
        "temporal_compression_ratio": 8,
    }


def transformer(config):
    return LTXVideoTransformer3DModel(**transformer_config(config)).eval()


def vae(graph, config):
    return AutoencoderKLLTXVideo(**vae_config(graph, config)).eval()


def t5_config(config):
    return T5Config(
        d_model=config.width,
        num_layers=config.layers,
        num_heads=config.heads,
        d_kv=config.head_size,
        d_ff=config.ff_width,
        vocab_size=config.vocab_size,
        feed_forward_proj="gated-gelu",
    )


class Named2048:
    """Makes diffusers take a tiny VAE for the 0.9.5 one, which it tells by 2048 channels."""

    shape = (129, 2048)

    def __init__(self, tensor):
        self.tensor = tensor


def to_diffusers_vae(tensors, graph):
    """Official names to diffusers', by diffusers' own converter."""
    key = "vae.encoder.conv_out.conv.weight"
    if graph == "0.9.5":
        tensors[key] = Named2048(tensors[key])
    converted = convert_ltx_vae_checkpoint_to_diffusers(tensors)
    return {n: t.tensor if isinstance(t, Named2048) else t for n, t in converted.items()}


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


LONGEST = ("test_compile.py", "test_parity.py")


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
