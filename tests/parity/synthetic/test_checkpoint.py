"""Synthetic checkpoints are what the reference implementations load."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest
import torch
from diffusers.loaders.single_file_utils import convert_ltx_transformer_checkpoint_to_diffusers
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import T5EncoderModel

from ltxrt.engines.errors import InputError
from ltxrt.export.checkpoint.safetensors import SafetensorsFile
from ltxrt.export.ltxv.config import UpsamplerConfig
from ltxrt.parity.synthetic import checkpoint as synthetic
from ltxrt.parity.synthetic.models import full, tiny
from ltxrt.parity.synthetic.tokenizer import write_tokenizer

GRAPHS = ["0.9.0", "0.9.1", "0.9.5"]


def write(path, version, **options):
    models = tiny(version)
    synthetic.write_official(path, models.transformer, models.vae, models.scheduler, **options)
    return models


@pytest.mark.parametrize("graph", GRAPHS)
def test_official_file_loads_into_diffusers_and_makes_video(tmp_path, reference, graph):
    models = write(tmp_path / "x.safetensors", graph, seed=1)
    tensors = load_file(tmp_path / "x.safetensors")
    parts = {p: {n: t for n, t in tensors.items() if n.startswith("vae.") == p} for p in (True, False)}
    transformer, vae = reference.transformer(models.transformer), reference.vae(graph, models.vae)
    transformer.load_state_dict(convert_ltx_transformer_checkpoint_to_diffusers(parts[False]), strict=True)
    vae.load_state_dict(reference.to_diffusers_vae(parts[True], graph), strict=True)
    assert (vae.latents_std > 0.3).all() and vae.latents_mean.std() > 0.1
    torch.manual_seed(0)
    with torch.no_grad():
        velocity = transformer(
            hidden_states=torch.randn(1, 2 * 2 * 3, 16),
            encoder_hidden_states=torch.randn(1, 5, 32),
            timestep=torch.tensor([700.0]),
            encoder_attention_mask=torch.ones(1, 5),
            num_frames=2,
            height=2,
            width=3,
        ).sample
        latents = velocity.reshape(1, 2, 2, 3, 16).movedim(-1, 1)
        temb = torch.tensor([0.05]) if models.vae.timestep_conditioning else None
        video = vae.decode(latents, temb).sample
        mean = vae.encode(video.clamp(-1, 1)).latent_dist.mean
    assert video.shape == (1, 3, 9, 64, 96) and mean.shape == latents.shape
    for tensor in (velocity, video, mean):
        assert torch.isfinite(tensor).all() and 0.05 < tensor.std() < 20


def test_text_encoder_loads_into_transformers(tmp_path):
    config = tiny("0.9.0").text_encoder
    synthetic.write_text_encoder(tmp_path, config)
    model, report = T5EncoderModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["unexpected_keys"] and not set(report["missing_keys"]) - {"encoder.embed_tokens.weight"}
    assert torch.equal(model.shared.weight, model.encoder.embed_tokens.weight)
    ids = (
        Tokenizer.from_file(str(tmp_path / "tokenizer" / "tokenizer.json"))
        .encode("a red car on the road")
        .ids
    )
    with torch.no_grad():
        hidden = model(torch.tensor([ids])).last_hidden_state
    assert hidden.shape == (1, len(ids), 32) and torch.isfinite(hidden).all() and hidden.std() > 0.1


def test_tokenizer(tmp_path):
    write_tokenizer(tmp_path, 384)
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert [tokenizer.token_to_id(t) for t in ("<pad>", "</s>", "<unk>")] == [0, 1, 2]
    encoded = tokenizer.encode("The cat  walks, slowly")
    assert encoded.ids[-1] == 1 and max(encoded.ids) < 384
    assert "▁cat" in encoded.tokens and "▁walks" in encoded.tokens
    assert tokenizer.decode(encoded.ids) == "The cat walks, slowly"
    assert 2 in tokenizer.encode("日").ids
    assert tokenizer.encode("").ids[-1] == 1
    with pytest.raises(InputError, match="needs at least"):
        write_tokenizer(tmp_path, 50)


def test_seed_decides_and_dtypes_agree(tmp_path):
    paths = {n: tmp_path / f"{n}.safetensors" for n in ("a", "b", "c", "BF16", "F16")}
    write(paths["a"], "0.9.0", seed=3)
    write(paths["b"], "0.9.0", seed=3)
    write(paths["c"], "0.9.0", seed=4)
    assert paths["a"].read_bytes() == paths["b"].read_bytes() != paths["c"].read_bytes()
    reference = load_file(paths["a"])
    for dtype, torch_dtype in (("BF16", torch.bfloat16), ("F16", torch.float16)):
        write(paths[dtype], "0.9.0", seed=3, dtype=dtype)
        for name, tensor in load_file(paths[dtype]).items():
            assert torch.equal(tensor, reference[name].to(torch_dtype)), name
    with pytest.raises(InputError, match="must be F32, F16 or BF16"):
        write(paths["a"], "0.9.0", dtype="F8_E4M3")


def test_sparse_full_size_file_costs_no_disk(tmp_path):
    path = tmp_path / "x.safetensors"
    models = full("0.9.8-13b-distilled")
    synthetic.write_official(path, models.transformer, models.vae, models.scheduler, "BF16", fill="sparse")
    stat = path.stat()
    assert stat.st_size > 28e9 and stat.st_blocks * 512 < 1e9
    tensors = SafetensorsFile(path).tensors
    assert not tensors["model.diffusion_model.proj_out.weight"].raw()[:4096].any()
    assert (tensors["vae.per_channel_statistics.std-of-means"].float32() > 0).all()


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"old")
    monkeypatch.setattr(synthetic, "_encoded", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write(path, "0.9.0")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("part", "config", "digest"),
    [
        ("transformer", tiny("0.9.0").transformer, "9f6dcc920462b618"),
        ("text_encoder", tiny("0.9.0").text_encoder, "1567d4856b5ef49f"),
        ("vae", tiny("0.9.0").vae, "596ea5b868e3abf7"),
        ("vae", tiny("0.9.1").vae, "33f27cc8db946382"),
        ("vae", tiny("0.9.5").vae, "4dcd0ca2a2e70a3e"),
        ("latent_upsampler", UpsamplerConfig(16, 64, 2), "a73902fb0db241de"),
    ],
)
def test_a_seed_draws_the_same_weights_whatever_order_the_modules_have(part, config, digest):
    """Recorded before the names came from the modules: checkpoints of then and now are the same files."""
    listing = repr(list(synthetic.weights_of(part, config).items()))
    assert hashlib.sha256(listing.encode()).hexdigest()[:16] == digest


def test_a_tensor_larger_than_the_chunk_is_never_held_whole(tmp_path):
    code = """
import resource, sys
from ltxrt.parity.synthetic import checkpoint as synthetic
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
synthetic.write_random(synthetic.Path(sys.argv[1]), {"a.weight": (8192, 8192)}, {}, "F32", 0, "random")
assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "x.safetensors")], check=True)
    values = SafetensorsFile(tmp_path / "x.safetensors").tensors["a.weight"].float32()
    assert abs(values.std() * np.sqrt(8192) - 1) < 0.01
