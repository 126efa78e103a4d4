"""FP8: which weights, how they are stored, what calibration is good for."""

import dataclasses
import json

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from ltxrt.engines.backend import load_engine
from ltxrt.engines.bundle import read_bundle
from ltxrt.engines.errors import InputError
from ltxrt.export.checkpoint.safetensors import SafetensorsFile
from ltxrt.export.cli import main as export_main
from ltxrt.export.graph import fp8
from ltxrt.export.ltxv.components import part_shapes
from ltxrt.export.ltxv.fp8 import LAYOUT
from ltxrt.parity.calibrate import main as calibrate_main
from ltxrt.parity.synthetic import checkpoint as synthetic
from ltxrt.parity.synthetic import models as synthetic_models

LAYERS = 6


def config(layers=LAYERS):
    tiny = synthetic_models.tiny("0.9.5").transformer
    return dataclasses.replace(tiny, layers=layers, heads=2, head_size=64, cross_attention_width=128)


@pytest.mark.parametrize(("layers", "kept"), [(28, 2), (48, 3), (6, 1), (2, 1)])
def test_the_outer_blocks_and_all_embeddings_stay(layers, kept):
    names = part_shapes("transformer", config(layers))
    chosen = fp8.projections(LAYOUT, names, layers)
    assert len(chosen) == 10 * max(layers - 2 * kept, 0)
    assert {int(name.split(".")[1]) for name in chosen} == set(range(kept, layers - kept))
    assert all(name.endswith(".weight") and len(names[name]) == 2 for name in chosen)


@pytest.mark.parametrize("base", [torch.float16, torch.bfloat16])
def test_weights_come_back_within_fp8_s_step(base):
    weight = torch.randn(64, 48, generator=torch.Generator().manual_seed(0)) * torch.logspace(-3, 2, 48)
    weight[:, 7] = 0
    stored, scale = fp8.quantise(weight, base)
    assert (stored.dtype, scale.dtype, scale.shape) == (torch.float8_e4m3fn, base, (48,))
    restored = stored.float() * scale.float()
    largest = weight.abs().amax(dim=0)
    assert ((restored - weight).abs() <= largest * 2**-4).all()
    assert (restored[:, 7] == 0).all() and torch.isfinite(restored).all()


@pytest.mark.parametrize(
    ("attributes", "factor"), [({"scale": 1.0}, 8.0), ({"scale": 0.125}, 1.0), ({}, 1.0)]
)
def test_a_scales_file_has_queries_without_their_scale(attributes, factor):
    """So it serves graphs that scale queries themselves and older ones that left it to the operator."""
    node = ir.node("Attention", [ir.val(name) for name in "qkv"], attributes)
    assert fp8.unscaled("transformer_blocks.1.attn1.q", node, 64) == factor
    assert fp8.unscaled("transformer_blocks.1.attn1.k", node, 64) == 1.0


def run(main, *arguments):
    return CliRunner().invoke(main, list(map(str, arguments)))


@pytest.fixture(scope="module")
def loud(tmp_path_factory):
    """A checkpoint some of whose activations pass 448, as those of trained models do; its fp16 bundle."""
    folder = tmp_path_factory.mktemp("loud")
    models = synthetic_models.tiny("0.9.5")
    file = folder / "model.safetensors"
    synthetic.write_official(file, config(), models.vae, models.scheduler)
    tensors = load_file(file)
    header = SafetensorsFile(file).metadata
    for block in range(LAYERS):
        name = f"model.diffusion_model.transformer_blocks.{block}.ff.net"
        for part in ("0.proj.weight", "0.proj.bias"):
            tensors[f"{name}.{part}"] *= 600
        tensors[f"{name}.2.weight"] /= 600
    save_file(tensors, file, header)
    synthetic.write_text_encoder(folder / "t5", models.text_encoder)
    arguments = ["--model-version", "0.9.5", "--text-encoder", folder / "t5", "--output", folder / "bundle"]
    names = ["--component", "text_encoder", "--component", "transformer"]
    made = run(export_main, "onnx", file, *names, *arguments)
    assert made.exit_code == 0, made.stderr
    return folder


@pytest.fixture(scope="module")
def scales(loud):
    """Made by the calibration command, in two runs of which the second goes on."""
    (loud / "prompts.txt").write_text("a dog runs\n")
    size = ["--height", 96, "--width", 96, "--num-frames", 17, "--steps", 4]
    options = [
        "--bundle",
        loud / "bundle",
        "--prompts",
        loud / "prompts.txt",
        "--output",
        loud / "scales.json",
    ]
    first = run(calibrate_main, *options, *size)
    assert first.exit_code == 0, first.stderr
    (loud / "prompts.txt").write_text("a dog runs\nwaves on a shore\n")
    second = run(calibrate_main, *options, *size)
    assert "sampling: step 0/4\n" in second.stderr  # of the second prompt alone
    other = run(calibrate_main, *options, "--steps", 9)
    assert other.exit_code == 2 and "other settings" in other.stderr
    assert [p.name for p in (loud / "bundle" / "onnx").glob(".*")] == []
    return loud / "scales.json"


def export(loud, target, *options):
    file = loud / "model.safetensors"
    made = run(
        export_main, "onnx", file, "--model-version", "0.9.5", "--component", "transformer",
        "--output", target, *options,
    )  # fmt: skip
    assert made.exit_code == 0, made.stderr
    return read_bundle(target)


def error(bundle, precision, other, seed):
    feed = bundle.contract("transformer").sample(
        {"B": 2, "N": 30, "K": 2, "T": 9}, np.random.default_rng(seed)
    )
    ours = load_engine(bundle, "transformer", precision=precision)(**feed)["velocity"]
    theirs = load_engine(other, "transformer", precision="fp16")(**feed)["velocity"]
    return np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)


def test_calibrated_fp8_is_near_fp16_and_uncalibrated_is_not(loud, scales, tmp_path):
    half = export(loud, tmp_path / "fp16", "--precision", "fp16")
    calibrated = export(loud, tmp_path / "fp16", "--precision", "fp8-fp16", "--scales", scales)
    plain = export(loud, tmp_path / "plain", "--precision", "fp8-fp16", "--uncalibrated")
    for seed in range(3):
        good, bad = error(calibrated, "fp8-fp16", half, seed), error(plain, "fp8-fp16", half, seed)
        assert 0 < good <= 5e-2 and bad > 2 * good


def test_fp8_weights_are_stored_as_fp8(loud, scales, tmp_path):
    bundle = export(loud, tmp_path / "b", "--precision", "fp8", "--scales", scales)
    graph = bundle.graph("transformer")
    model = onnx.load(str(bundle.path(graph.file)), load_external_data=False).graph
    stored = {i.name: i.data_type for i in model.initializer}
    chosen = fp8.projections(LAYOUT, part_shapes("transformer", config()), LAYERS)
    assert {stored[name] for name in chosen} == {onnx.TensorProto.FLOAT8E4M3FN}
    assert {stored[f"{name}.scale"] for name in chosen} == {onnx.TensorProto.BFLOAT16}
    readers = {i: n.op_type for n in model.node for i in n.input}
    assert {readers[name] for name in chosen} == {"DequantizeLinear"}
    products = [n for n in model.node if n.op_type == "MatMul"]
    made = {o: n.op_type for n in model.node for o in n.output}
    both = [n for n in products if [made.get(i) for i in n.input] == ["DequantizeLinear"] * 2]
    assert len(both) == len(chosen), "nothing may stand between dequantising and the product"


def test_fp8_attention_quantises_self_attention_of_the_middle_blocks(loud, scales, tmp_path):
    half = export(loud, tmp_path / "b", "--precision", "fp16")
    options = ("--precision", "fp8-fp16", "--scales", scales)
    plain = export(loud, tmp_path / "plain", *options)
    bundle = export(loud, tmp_path / "b", *options, "--fp8-attention")
    model = onnx.load(
        str(bundle.path(bundle.graph("transformer", "fp8-fp16").file)), load_external_data=False
    )
    made = {o: n.op_type for n in model.graph.node for o in n.output}
    inputs = [[made[i] for i in n.input[:3]] for n in model.graph.node if n.op_type == "Attention"]
    quantised = [kinds == ["DequantizeLinear"] * 3 for kinds in inputs]
    middle = range(1, LAYERS - 1)
    # The graph scales queries before it quantises them; a scales file has them as they were without.
    steps = {
        i.name: float(onnx.numpy_helper.to_array(i))
        for i in model.graph.initializer
        if i.name.endswith("attn1.q_scale")
    }
    amax = json.loads(scales.read_text())["amax"]
    wanted = {
        f"transformer_blocks.{i}.attn1.q_scale": amax[f"transformer_blocks.{i}.attn1.q"] for i in middle
    }
    assert steps == pytest.approx({name: q / 8 / 448 for name, q in wanted.items()}, rel=1e-3)
    assert quantised == [i % 2 == 0 and i // 2 in middle for i in range(2 * LAYERS)]
    for seed in range(3):
        with_attention, without = (error(b, "fp8-fp16", half, seed) for b in (bundle, plain))
        assert 0 < with_attention <= 8e-2 and with_attention != without


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--precision", "bf16", "--fp8-attention"], "--fp8-attention is for --precision transformer=fp8"),
        (["--precision", "fp8"], "takes --scales FILE"),
        (["--precision", "fp8", "--scales", "s.json", "--uncalibrated"], "give one of them"),
        (["--precision", "bf16", "--scales", "s.json"], "--scales is for --precision transformer=fp8"),
        (["--precision", "fp8", "--scales", "absent.json"], "no such file"),
    ],
)
def test_wrong_options_get_one_line(loud, tmp_path, options, message):
    file, scales = loud / "model.safetensors", tmp_path / "s.json"
    scales.write_text("{}")
    options = [scales if option == "s.json" else option for option in options]
    base = [export_main, "onnx", file, "--model-version", "0.9.5", "--component", "transformer"]
    refused = run(*base, "--output", tmp_path / "b", *options)
    assert refused.exit_code == 2 and message in refused.stderr and "Traceback" not in refused.stderr


def test_only_the_transformer_is_quantised(loud, tmp_path):
    base = [export_main, "onnx", loud / "model.safetensors", "--model-version", "0.9.5"]
    refused = run(
        *base, "--component", "vae_decoder", "--precision", "fp8", "--uncalibrated", "--output", tmp_path
    )
    assert refused.exit_code == 2 and "only the transformer is quantised" in refused.stderr


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("words", "is not a scales file"),
        ('{"schema": 1}', "is not a scales file"),
        ('{"schema": 1, "amax": {"other": 2.0}}', "1 of 1 projections are missing"),
        ('{"schema": 1, "amax": {"w": 0.0}}', "it holds wrong numbers"),
        ('{"schema": 1, "amax": {"w": NaN}}', "is not a scales file"),
        ('{"schema": 1, "amax": {"w": 1' + "0" * 400 + "}}", "is not a scales file"),
        ('{"schema": 7, "amax": {"w": 1.0}}', "does not fit this network"),
    ],
)
def test_other_scales_files_are_refused(tmp_path, content, message):
    (tmp_path / "s.json").write_text(content)
    with pytest.raises(InputError, match=message):
        fp8.read_scales(tmp_path / "s.json", ["w"])
