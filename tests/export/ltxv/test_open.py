"""Every layout of a checkpoint opens as the same parts, and damaged ones are refused in a sentence."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from diffusers import FlowMatchEulerDiscreteScheduler
from safetensors.torch import load_file, save_file
from transformers import T5EncoderModel

from ltxrt.engines.errors import CheckpointError
from ltxrt.export.checkpoint import safetensors
from ltxrt.export.checkpoint.part import Part, check_tensors
from ltxrt.export.checkpoint.safetensors import SafetensorsFile, StoredTensor
from ltxrt.export.graph import weights
from ltxrt.export.ltxv.components import part_shapes
from ltxrt.export.ltxv.official import official_transformer, official_vae
from ltxrt.export.ltxv.open import open_checkpoint
from ltxrt.parity.synthetic import checkpoint as synthetic
from ltxrt.parity.synthetic.models import full, tiny

GRAPHS = ["0.9.0", "0.9.1", "0.9.5"]


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    """A tiny official file per graph."""
    folder = tmp_path_factory.mktemp("official")
    for version in GRAPHS:
        models = tiny(version)
        path = folder / f"{version}.safetensors"
        synthetic.write_official(path, models.transformer, models.vae, models.scheduler)
    return folder


@pytest.fixture
def rewritten(official, tmp_path):
    """A function that writes the tiny official 0.9.5 file with its tensors and header config changed."""

    def rewrite(change=lambda tensors: tensors, config="keep", name="x.safetensors"):
        source = official / "0.9.5.safetensors"
        metadata = dict(SafetensorsFile(source).metadata)
        if config != "keep":
            metadata = {"config": json.dumps(config)} if config is not None else {}
        save_file(change(load_file(source)), tmp_path / name, metadata=metadata or None)
        return tmp_path / name

    return rewrite


@pytest.mark.parametrize("version", GRAPHS)
def test_official_file(official, version):
    models = tiny(version)
    checkpoint = open_checkpoint(official / f"{version}.safetensors")
    assert checkpoint.transformer.config == models.transformer
    assert checkpoint.vae.config == models.vae
    assert checkpoint.scheduler == models.scheduler
    assert checkpoint.version.name == version
    assert checkpoint.text_encoder is checkpoint.tokenizer is None
    assert checkpoint.transformer.weights.keys() == part_shapes("transformer", models.transformer).keys()
    assert checkpoint.vae.weights.keys() == part_shapes("vae", models.vae).keys()


def test_official_files_unused_statistics_are_dropped(rewritten):
    extra = ["channel", "mean-of-stds", "mean-of-stds_over_std-of-means"]

    def change(tensors):
        mean = tensors["vae.per_channel_statistics.mean-of-means"]
        return tensors | {f"vae.per_channel_statistics.{n}": mean.clone() for n in extra}

    weights = open_checkpoint(rewritten(change)).vae.weights
    assert [n for n in weights if n.startswith("per_channel")] == [
        "per_channel_statistics.mean-of-means",
        "per_channel_statistics.std-of-means",
    ]


@pytest.mark.parametrize("keep", ["vae.", ""])
def test_bare_vae_file(official, rewritten, keep):
    def change(tensors):
        return {keep + n.removeprefix("vae."): t for n, t in tensors.items() if n.startswith("vae.")}

    reference = open_checkpoint(official / "0.9.5.safetensors")
    for config in ("keep", None):  # the config can also be read from the shapes
        checkpoint = open_checkpoint(rewritten(change, config))
        assert checkpoint.transformer is None
        assert checkpoint.vae.config == reference.vae.config
        assert checkpoint.scheduler == reference.scheduler


def test_separate_vae_replaces_the_files_own(official, rewritten):
    def change(tensors):
        return {n: t + 1 for n, t in tensors.items() if n.startswith("vae.")}

    other = rewritten(change, name="other.safetensors")
    checkpoint = open_checkpoint(official / "0.9.5.safetensors", vae=other)
    assert checkpoint.vae.weights["encoder.conv_in.conv.bias"].path == other
    assert checkpoint.source == "0.9.5.safetensors, vae from other.safetensors"
    only_transformer = rewritten(lambda ts: {n: t for n, t in ts.items() if not n.startswith("vae.")})
    with pytest.raises(CheckpointError, match="given as the VAE but holds none"):
        open_checkpoint(official / "0.9.5.safetensors", vae=only_transformer)


def test_converted_file_without_config_or_vae(tmp_path):
    """Real widths, so that heads are known; sparse, so that the disk does not notice."""
    config = replace(full("0.9.5").transformer, layers=1)
    shapes = part_shapes("transformer", config)
    synthetic.write_random(tmp_path / "ltxv-2b-0.9.6-dev.safetensors", shapes, {}, "BF16", 0, "sparse")
    checkpoint = open_checkpoint(tmp_path / "ltxv-2b-0.9.6-dev.safetensors")
    assert checkpoint.transformer.config == config
    assert checkpoint.version.name == "0.9.6-dev" and checkpoint.scheduler == checkpoint.version.scheduler


@pytest.fixture(scope="module")
def folder(tmp_path_factory, reference):
    """A diffusers folder as the reference saves it: transformer sharded, T5 and tokenizer included."""
    folder = tmp_path_factory.mktemp("hub") / "LTX-Video-0.9.6-dev"
    models = tiny("0.9.5")
    reference.transformer(models.transformer).save_pretrained(folder / "transformer", max_shard_size="60KB")
    reference.vae("0.9.5", models.vae).save_pretrained(folder / "vae")
    FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=False).save_pretrained(folder / "scheduler")
    T5EncoderModel(reference.t5_config(models.text_encoder)).save_pretrained(folder / "text_encoder")
    synthetic.write_text_encoder(folder / "spare", models.text_encoder)
    shutil.move(folder / "spare" / "tokenizer", folder / "tokenizer")
    return folder


def test_diffusers_folder(folder):
    assert len(list((folder / "transformer").glob("*.safetensors"))) > 1
    models = tiny("0.9.5")
    checkpoint = open_checkpoint(folder)
    assert checkpoint.transformer.config == models.transformer  # causal positions come from the version
    assert checkpoint.vae.config == models.vae
    assert checkpoint.text_encoder.config == models.text_encoder
    assert checkpoint.tokenizer == folder / "tokenizer"
    assert checkpoint.version.name == "0.9.6-dev" and checkpoint.version.certain
    weight = checkpoint.transformer.weights["transformer_blocks.1.attn1.q_norm.weight"]
    np.testing.assert_array_equal(weight.float32(), np.ones(64))


@pytest.mark.parametrize("graph", GRAPHS)
def test_diffusers_vae_folder_and_file(tmp_path, reference, graph):
    config = tiny(graph).vae
    reference.vae(graph, config).save_pretrained(tmp_path / "vae")
    for path in (tmp_path, tmp_path / "vae", tmp_path / "vae" / "diffusion_pytorch_model.safetensors"):
        checkpoint = open_checkpoint(path)
        assert checkpoint.vae.config == config and checkpoint.version.vae_graph == graph
    (tmp_path / "vae" / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"its config\.json must lie beside it"):
        open_checkpoint(tmp_path / "vae" / "diffusion_pytorch_model.safetensors")


def test_distilled_steps_come_from_the_version(folder):
    checkpoint = open_checkpoint(folder, version="0.9.6-distilled")
    assert checkpoint.scheduler.allowed_steps == checkpoint.version.scheduler.allowed_steps
    assert checkpoint.scheduler.sampler == "linear_quadratic"


def test_hub_cache_names_the_release(folder, tmp_path):
    snapshot = tmp_path / "models--Lightricks--LTX-Video-0.9.5" / "snapshots" / "0f3a"
    shutil.copytree(folder, snapshot)
    row = open_checkpoint(snapshot).version
    assert (row.name, row.certain) == ("0.9.5", True)


@pytest.mark.parametrize("place", ["tokenizer", "model/tokenizer", "model"])
def test_text_encoder_folder(official, tmp_path, place):
    config = tiny("0.9.0").text_encoder
    synthetic.write_text_encoder(tmp_path / "model", config)
    target = tmp_path / place
    target.mkdir(exist_ok=True)
    (tmp_path / "model" / "tokenizer" / "tokenizer.json").rename(target / "tokenizer.json")
    checkpoint = open_checkpoint(official / "0.9.0.safetensors", text_encoder=tmp_path / "model")
    assert checkpoint.text_encoder.config == config
    assert checkpoint.tokenizer == target


def test_text_encoder_refusals(official, tmp_path, folder):
    model = official / "0.9.0.safetensors"
    with pytest.raises(CheckpointError, match=r"t5\.safetensors: no such folder; give the folder that holds"):
        open_checkpoint(model, text_encoder=tmp_path / "t5.safetensors")
    shutil.copytree(folder / "text_encoder", tmp_path / "alone")
    with pytest.raises(CheckpointError, match=r"no tokenizer\.json or spiece\.model"):
        open_checkpoint(model, text_encoder=tmp_path / "alone")
    with pytest.raises(CheckpointError, match="is a T5 file; give its folder"):
        open_checkpoint(tmp_path / "alone" / "model.safetensors")
    (tmp_path / "alone" / "model.safetensors").rename(tmp_path / "alone" / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"has only pickles \(pytorch_model\.bin\)"):
        open_checkpoint(model, text_encoder=tmp_path / "alone")
    with pytest.raises(CheckpointError) as refused:
        open_checkpoint(model, text_encoder=tmp_path)
    assert str(refused.value) == (
        f"text encoder {tmp_path}: no T5 text encoder; give the folder that holds text_encoder/ and "
        "tokenizer/, or T5's own files (config.json, weights, tokenizer.json or spiece.model)"
    )
    (tmp_path / "text_encoder").mkdir()
    with pytest.raises(CheckpointError, match="no T5 text encoder: its text_encoder/ has no config"):
        open_checkpoint(model, text_encoder=tmp_path)


def test_t5_with_a_decoder_or_the_other_embedding_name(official, tmp_path, folder):
    shutil.copytree(folder / "text_encoder", tmp_path / "text_encoder")
    shutil.copytree(folder / "tokenizer", tmp_path / "tokenizer")
    path = tmp_path / "text_encoder" / "model.safetensors"
    tensors = load_file(path)
    tensors["encoder.embed_tokens.weight"] = tensors.pop("shared.weight")
    tensors["decoder.final_layer_norm.weight"] = tensors["encoder.final_layer_norm.weight"].clone()
    tensors["lm_head.weight"] = tensors["encoder.embed_tokens.weight"].clone()
    path.unlink()
    save_file(tensors, path)
    weights = open_checkpoint(official / "0.9.0.safetensors", text_encoder=tmp_path).text_encoder.weights
    assert "shared.weight" in weights and not any(n.startswith(("decoder", "lm_head")) for n in weights)


def test_shards_stay_in_their_folder(folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder / "transformer", copy / "transformer")
    index = next((copy / "transformer").glob("*.index.json"))
    data = json.loads(index.read_text())
    first = next(iter(data["weight_map"]))
    for shard in ("../../secret.safetensors", "/etc/x.safetensors", "a\\b.safetensors", "x.bin", 3):
        index.write_text(json.dumps({"weight_map": data["weight_map"] | {first: shard}}))
        with pytest.raises(CheckpointError, match=r"must be the name of a \.safetensors file in its folder"):
            open_checkpoint(copy)
    index.write_text(json.dumps({"weight_map": {n: s for n, s in data["weight_map"].items() if n != first}}))
    with pytest.raises(CheckpointError, match="index and shards do not match"):
        open_checkpoint(copy)
    index.write_text(json.dumps({"weight_map": data["weight_map"] | {"more": data["weight_map"][first]}}))
    with pytest.raises(CheckpointError, match=r"more is not in .*index and shards do not match"):
        open_checkpoint(copy)
    (copy / "transformer" / data["weight_map"][first]).unlink()
    index.write_text(json.dumps(data))
    with pytest.raises(CheckpointError, match=r"\.safetensors: no such file"):
        open_checkpoint(copy)


def test_what_is_no_checkpoint(tmp_path, rewritten, official):
    with pytest.raises(CheckpointError, match="no such file"):
        open_checkpoint(tmp_path / "none")
    with pytest.raises(CheckpointError, match="neither a diffusers folder"):
        open_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match=r"give one of its files, such as .*0\.9\.0\.safetensors"):
        open_checkpoint(official)
    upscaler = rewritten(lambda ts: {"initial_conv.weight": next(iter(ts.values()))}, None)
    with pytest.raises(CheckpointError, match=r"1 tensors belong to neither .*initial_conv\.weight"):
        open_checkpoint(upscaler)
    with pytest.raises(CheckpointError, match="holds neither a transformer nor a VAE"):
        open_checkpoint(rewritten(lambda ts: {}, None))
    with pytest.raises(CheckpointError, match="header config: transformer must be an object"):
        open_checkpoint(rewritten(config={"transformer": 3}))
    (tmp_path / "config.json").write_text('{"_class_name": "UNet2DConditionModel"}')
    with pytest.raises(CheckpointError, match=r"config\.json is of UNet2DConditionModel"):
        open_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="is not JSON"):
        open_checkpoint(tmp_path)


def test_version_override_is_checked(official):
    assert open_checkpoint(official / "0.9.5.safetensors", version="0.9.7-dev").version.name == "0.9.7-dev"
    with pytest.raises(CheckpointError, match=r"version 0\.9\.0 does not fit"):
        open_checkpoint(official / "0.9.5.safetensors", version="0.9.0")


def test_tensors_must_be_those_of_the_config(rewritten):
    prefix = "model.diffusion_model."

    def change(tensors):
        del tensors[prefix + "proj_out.bias"]
        tensors[prefix + "transformer_blocks.0.attn1.to_q.scale_weight"] = tensors[prefix + "proj_out.weight"]
        tensors[prefix + "proj_out.weight"] = tensors[prefix + "proj_out.weight"][:-1].clone()
        return tensors

    counted = r"transformer: .*1 missing \(proj_out\.bias\); 1 surplus \(.*scale_weight\); 1 misshapen "
    with pytest.raises(
        CheckpointError, match=counted + r"\(proj_out\.weight \(15, 64\) instead of \(16, 64\)\)"
    ):
        open_checkpoint(rewritten(change))


def test_integer_weights_are_refused_when_the_checkpoint_is_opened():
    stored = StoredTensor("a", "I32", (2,), Path("x.safetensors"), 0, 8)
    with pytest.raises(CheckpointError, match=r"1 not of F64, F32, F16, BF16, F8_E4M3 \(a I32\)"):
        check_tensors(Part(None, {"a": stored}), {"a": (2,)})
    assert set(safetensors.WEIGHTS) == set(weights.TORCH_DTYPES)


def test_more_blocks_than_tensors_are_refused_before_they_are_built(tmp_path):
    models = tiny("0.9.5")
    deep = replace(models.transformer, layers=900)
    text = json.dumps({"transformer": official_transformer(deep), "vae": official_vae(models.vae)})
    shapes = {
        f"model.diffusion_model.{n}": s for n, s in part_shapes("transformer", models.transformer).items()
    }
    synthetic.write_random(tmp_path / "x.safetensors", shapes, {"config": text}, "F32", 0, "random")
    with pytest.raises(
        CheckpointError, match="transformer: the config has 900 blocks, the checkpoint 65 tensors"
    ):
        open_checkpoint(tmp_path / "x.safetensors")


def test_the_error_shows_the_first_few_and_counts_all():
    with pytest.raises(CheckpointError, match=r"9 missing \(0, 1, 2, 3, …\)"):
        check_tensors(Part(None, {}), {str(i): (1,) for i in range(9)})
    check_tensors(Part(None, {}), {})
