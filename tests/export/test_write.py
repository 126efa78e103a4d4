"""Exports as a whole: sources that agree, bundles that grow, mistakes and interruptions that cost nothing."""

import errno
import json
import os
import shutil
import threading

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import load_file, save_file

from ltxrt.engines.backend import load_engine
from ltxrt.engines.bundle import read_bundle, verify
from ltxrt.engines.errors import BundleError, CheckpointError, InputError, LtxrtError
from ltxrt.engines.parsing import graph_check
from ltxrt.export import write as build
from ltxrt.export.components import Component
from ltxrt.export.graph import trace
from ltxrt.export.graph.weights import read
from ltxrt.export.ltxv.components import COMPONENTS
from ltxrt.export.ltxv.models import t5
from ltxrt.export.ltxv.open import open_checkpoint
from ltxrt.export.write import Plan, export_bundle
from ltxrt.parity.synthetic import checkpoint as synthetic
from ltxrt.parity.synthetic import models as synthetic_models

EXTERNAL = onnx.TensorProto.EXTERNAL


def opened(folder, version="0.9.5"):
    return open_checkpoint(folder / "model.safetensors", text_encoder=folder / "t5", version=version)


def export(checkpoint, folder, **precisions):
    export_bundle(Plan(checkpoint, folder, precisions))
    return read_bundle(folder)


@pytest.fixture
def copy(tiny_bundle, tmp_path):
    return shutil.copytree(tiny_bundle("0.9.5"), tmp_path / "bundle")


def test_single_file_and_diffusers_folder_give_the_same_weights(tiny_bundle, diffusers_folder, tmp_path):
    folder = diffusers_folder("0.9.5")
    assert len(list((folder / "transformer").glob("*.safetensors"))) > 1, "the shards are part of the test"
    names = ("text_encoder", "transformer", "vae_encoder", "vae_decoder")
    ours = export(open_checkpoint(folder, version="0.9.5"), tmp_path / "b", **dict.fromkeys(names, "fp32"))
    single = read_bundle(tiny_bundle("0.9.5"))
    for name in names:
        for one, other in zip(ours.graph(name).data, single.graph(name).data):
            assert (one.sha256, one.bytes) == (other.sha256, other.bytes), name
        assert ours.graph(name).file.sha256 == single.graph(name).file.sha256, name
    assert ours.facts == single.facts


ISLANDS = {  # what stays fp32 in every precision
    "ones",
    "decoder.timestep_scale_multiplier",
    "per_channel_statistics.mean-of-means",
    "per_channel_statistics.std-of-means",
}


def stored_types(bundle, name, precision):
    """The types of the graph's weights without the islands, and those of its inputs and outputs."""
    graph = onnx.load(str(bundle.path(bundle.graph(name, precision).file)), load_external_data=False).graph
    stored = {i.name: i.data_type for i in graph.initializer if i.data_location == EXTERNAL}
    assert {stored.pop(n) for n in ISLANDS & set(stored)} <= {onnx.TensorProto.FLOAT}
    ports = {v.type.tensor_type.elem_type for v in (*graph.input, *graph.output)}
    return set(stored.values()), ports


def test_fp16_beside_fp32(copy, tiny_checkpoint):
    sizes = {
        "transformer": {"B": 2, "N": 30, "K": 2, "T": 9},
        "vae_encoder": {"B": 2, "f": 2, "h": 1, "w": 2},
        "vae_decoder": {"B": 1, "f": 2, "h": 3, "w": 2},
    }
    bundle = export(opened(tiny_checkpoint("0.9.5")), copy, **dict.fromkeys(sizes, "fp16"))
    verify(bundle)
    assert set(bundle.components["transformer"]) == {"fp32", "fp16"}
    for name, size in sizes.items():
        weights, ports = stored_types(bundle, name, "fp16")
        assert weights == {onnx.TensorProto.FLOAT16} and onnx.TensorProto.FLOAT16 not in ports
        feed = bundle.contract(name).sample(size, np.random.default_rng(0))
        outputs = {}
        for precision in ("fp32", "fp16"):
            with load_engine(bundle, name, precision=precision) as engine:
                (outputs[precision],) = engine(**feed).values()
        assert outputs["fp16"].dtype == np.float32
        error = np.linalg.norm(outputs["fp16"] - outputs["fp32"]) / np.linalg.norm(outputs["fp32"])
        assert 0 < error <= 5e-3, name


def test_bf16_passes_the_checker(tmp_path, parity_case):
    """ONNX Runtime has no bf16 on a CPU: the checker, which the export runs, infers every type."""
    bundle = read_bundle(parity_case / "bundle")
    for name in ("text_encoder", "transformer", "vae_encoder", "vae_decoder"):
        graph = bundle.graph(name, "bf16")
        for file in (graph.file, *graph.data):  # copied: the checker refuses files that others link to
            shutil.copy(bundle.path(file), tmp_path)
        onnx.checker.check_model(str(tmp_path / bundle.path(graph.file).name), full_check=True)
        weights, ports = stored_types(bundle, name, "bf16")
        integers = {onnx.TensorProto.INT64} if name == "text_encoder" else set()  # the distances' buckets
        assert weights == {onnx.TensorProto.BFLOAT16} | integers and onnx.TensorProto.BFLOAT16 not in ports


def untraceable(*_):
    raise AssertionError("work began before the mistake was found")


@pytest.fixture
def no_work(monkeypatch):
    monkeypatch.setattr(build, "trace", untraceable)


@pytest.fixture
def overflowing(tiny_checkpoint, tmp_path):
    """The tiny checkpoint with a T5 whose feed-forward output is far beyond 65504, as T5-XXL's."""
    folder = shutil.copytree(tiny_checkpoint("0.9.5"), tmp_path / "checkpoint")
    tensors = load_file(folder / "t5" / "model.safetensors")
    for name in tensors:
        if name.endswith("wo.weight"):
            tensors[name] *= 5e4
        if name.endswith("wi_1.weight"):
            tensors[name] *= 30
    save_file(tensors, folder / "t5" / "model.safetensors", {"format": "pt"})
    return folder


def text_outputs(folder, target):
    """Hidden states of one prompt, half of it padding, by precision."""
    bundle = export(opened(folder), target, text_encoder="fp32")
    bundle = export(opened(folder), target, text_encoder="fp16")
    ids = np.random.default_rng(0).integers(2, 384, (1, 12))
    feed = {"input_ids": ids, "attention_mask": (np.arange(12) < 7).astype(np.int64)[None]}
    engines = {p: load_engine(bundle, "text_encoder", precision=p) for p in ("fp32", "fp16")}
    return {p: engine(**feed)["hidden_states"][:, :7] for p, engine in engines.items()}


def test_t5_in_fp16_equals_fp32_on_weights_that_overflow(overflowing, tmp_path):
    outputs = text_outputs(overflowing, tmp_path / "bundle")
    assert 0 < np.linalg.norm(outputs["fp16"] - outputs["fp32"]) / np.linalg.norm(outputs["fp32"]) <= 2e-3


def in_torch(folder, dtype, form):
    """The traced module itself in `dtype`: ONNX Runtime's CPU keeps sums in fp32."""
    checkpoint = opened(folder)
    config, scales = checkpoint.text_encoder.config, form.scales(checkpoint.text_encoder.config)
    weights = {
        n: (read(t) * scales.get(n, 1.0)).to(dtype) for n, t in checkpoint.text_encoder.weights.items()
    }
    module = t5.TextEncoder(form.config(config)).to(dtype)
    module = trace.load_module(module, {**weights, **t5.constants(config)})
    ids = torch.from_numpy(np.random.default_rng(0).integers(2, 384, (1, 12)))
    with torch.no_grad():
        return module(ids, (torch.arange(12) < 7).long()[None])[:, :7].numpy()


def test_the_plain_cast_overflows_and_the_safe_form_does_not(overflowing):
    plain = Component("", t5.TextEncoder).form("fp16")
    safe = COMPONENTS["text_encoder"].form("fp16")
    exact = in_torch(overflowing, torch.float32, plain)
    rounded = in_torch(overflowing, torch.float16, safe)
    assert np.linalg.norm(rounded - exact) / np.linalg.norm(exact) <= 2e-3
    assert not np.isfinite(in_torch(overflowing, torch.float16, plain)).all()
    # Powers of two: in fp32 the two forms agree but for the order in which numbers are rounded.
    np.testing.assert_allclose(in_torch(overflowing, torch.float32, safe), exact, rtol=1e-4, atol=1e-5)


def test_the_safe_form_is_in_the_weights_map(overflowing, tmp_path):
    bundle = export(opened(overflowing), tmp_path / "b", text_encoder="fp16")
    rows = json.loads(bundle.path(bundle.graph("text_encoder").weights_map).read_text())
    assert {name: row["scale"] for name, row in rows.items() if row["scale"] != 1} == {
        "shared.weight": 2**-6,
        **{f"encoder.block.{i}.layer.0.SelfAttention.o.weight": 2**-6 for i in (0, 1)},
        **{f"encoder.block.{i}.layer.1.DenseReluDense.wi_1.weight": 2**-3 for i in (0, 1)},
        **{f"encoder.block.{i}.layer.1.DenseReluDense.wo.weight": 2**-3 for i in (0, 1)},
    }


def test_text_encoder_of_another_width_is_refused(tiny_checkpoint, tmp_path, no_work):
    wide = synthetic_models.tiny("0.9.5").text_encoder.__class__(48, 2, 4, 8, 64, 384)
    synthetic.write_text_encoder(tmp_path / "t5", wide)
    file = tiny_checkpoint("0.9.5") / "model.safetensors"
    checkpoint = open_checkpoint(file, text_encoder=tmp_path / "t5", version="0.9.5")
    with pytest.raises(CheckpointError, match="text encoder is 48 wide but the transformer reads 32"):
        export(checkpoint, tmp_path / "b", text_encoder="fp32")


def test_component_that_the_checkpoint_lacks(tiny_checkpoint, tmp_path, no_work):
    checkpoint = open_checkpoint(tiny_checkpoint("0.9.5") / "model.safetensors", version="0.9.5")
    with pytest.raises(CheckpointError, match=r"no text_encoder.*give text_encoder$"):
        export(checkpoint, tmp_path / "b", text_encoder="fp32")


def test_another_model_is_kept_out_of_a_bundle(copy, tiny_checkpoint, no_work):
    with pytest.raises(BundleError, match="another checkpoint"):
        export(opened(tiny_checkpoint("0.9.0"), "0.9.0"), copy, transformer="fp32")
    verify(read_bundle(copy))


def test_output_that_cannot_be_made_is_refused(tiny_checkpoint, tmp_path, no_work):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"output .*file/b: cannot be made \(Not a directory\)"):
        export(opened(tiny_checkpoint("0.9.5")), tmp_path / "file" / "b", transformer="fp32")


def test_output_that_is_not_writable_is_refused(tiny_checkpoint, tmp_path, no_work, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    with pytest.raises(InputError, match=r"output .*b: not writable"):
        export(opened(tiny_checkpoint("0.9.5")), tmp_path / "b", transformer="fp32")


@pytest.mark.parametrize("kind", ["full", "file"])
def test_output_that_is_something_else_is_refused(tiny_checkpoint, tmp_path, no_work, kind):
    output = tmp_path / "out"
    if kind == "file":
        output.write_text("precious")
    else:
        output.mkdir()
        (output / "precious").touch()
    with pytest.raises(InputError, match=r"output .*(not empty and not a bundle|is a file)"):
        export(opened(tiny_checkpoint("0.9.5")), output, transformer="fp32")
    assert output.is_file() or (output / "precious").is_file()


class Interrupting:
    """Presses Ctrl-C when a stage begins whose name holds `moment`, or when half the weights are written."""

    def __init__(self, moment):
        self.moment = moment

    def __call__(self, progress):
        half_way = progress.total is not None and 2 * progress.done > progress.total
        if self.moment in progress.stage or (self.moment == "half-way" and half_way):
            raise KeyboardInterrupt


def files(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("moment", ["tracing", "writing", "half-way"])
def test_interrupted_replacement_leaves_the_bundle_as_it_was(copy, tiny_checkpoint, moment):
    before = files(copy)
    with pytest.raises(KeyboardInterrupt):
        plan = Plan(opened(tiny_checkpoint("0.9.5")), copy, {"transformer": "fp32"})
        export_bundle(plan, Interrupting(moment))
    assert files(copy) == before
    verify(read_bundle(copy))


def test_interrupted_at_the_last_moment_leaves_a_valid_bundle(copy, tiny_checkpoint):
    with pytest.raises(KeyboardInterrupt):
        plan = Plan(opened(tiny_checkpoint("0.9.5")), copy, {"transformer": "fp32"})
        export_bundle(plan, Interrupting("checking"))
    bundle = read_bundle(copy)
    verify(bundle)
    assert "transformer" not in bundle.components and "vae_decoder" in bundle.components
    assert [name for name in files(copy) if "transformer" in name] == []
    with pytest.raises(InputError, match="the bundle has no transformer"):
        bundle.graph("transformer")


def test_a_graph_that_the_runtime_would_refuse_is_not_recorded(tiny_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(graph_check, "OPERATORS", graph_check.OPERATORS - {"Gelu"})
    with pytest.raises(LtxrtError, match=r"text_encoder fp32: the runtime would refuse .*operator 'Gelu'"):
        export(opened(tiny_checkpoint("0.9.5")), tmp_path / "bundle", text_encoder="fp32")
    assert "text_encoder.fp32.onnx" not in {p.name for p in (tmp_path / "bundle").rglob("*")}


def test_a_full_disk_leaves_the_bundle_as_it_was(copy, tiny_checkpoint, monkeypatch):
    def full(_traced, _weights, _constants, path, *_):
        path.write_bytes(b"some of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(build, "stream", full)
    before = files(copy)
    with pytest.raises(OSError, match="No space left"):
        export(opened(tiny_checkpoint("0.9.5")), copy, transformer="fp32")
    assert files(copy) == before


def test_a_tokenizer_of_other_bytes_replaces_the_one_there(copy, tiny_checkpoint, tmp_path):
    folder = shutil.copytree(tiny_checkpoint("0.9.5"), tmp_path / "checkpoint")
    file = folder / "t5" / "tokenizer" / "tokenizer.json"
    file.write_text(json.dumps(json.loads(file.read_text())))
    plan = Plan(opened(folder), copy, {"text_encoder": "fp32"})
    with pytest.raises(KeyboardInterrupt):
        export_bundle(plan, Interrupting("tracing"))
    interrupted = read_bundle(copy)
    verify(interrupted)
    assert interrupted.path(interrupted.tokenizer).read_bytes() == file.read_bytes()
    export_bundle(plan)
    verify(read_bundle(copy))


def test_a_tokenizer_that_cannot_be_used_is_refused_first(copy, tiny_checkpoint, tmp_path, no_work):
    folder = shutil.copytree(tiny_checkpoint("0.9.5"), tmp_path / "checkpoint")
    (folder / "t5" / "tokenizer" / "tokenizer.json").write_text("{}")
    before = files(copy)
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: not a readable tokenizer"):
        export(opened(folder), copy, text_encoder="fp32", transformer="fp32")
    assert files(copy) == before


def test_what_is_damaged_is_mended_by_exporting_it_again(copy, tiny_checkpoint):
    """The messages about a damaged bundle say so."""
    (copy / "onnx" / "transformer.fp32.onnx.data").unlink()
    (copy / "onnx" / "text_encoder.fp32.onnx").write_bytes(b"cut")
    (copy / "tokenizer" / "tokenizer.json").unlink()
    with pytest.raises(BundleError, match="export"):
        read_bundle(copy)
    bundle = export(opened(tiny_checkpoint("0.9.5")), copy, text_encoder="fp32", transformer="fp32")
    verify(bundle)
    assert set(bundle.components) == {"text_encoder", "transformer", "vae_encoder", "vae_decoder"}


def test_damage_that_the_export_does_not_mend_is_refused_first(copy, tiny_checkpoint, no_work):
    (copy / "onnx" / "vae_decoder.fp32.onnx.data").unlink()
    with pytest.raises(BundleError, match=r"vae_decoder\.fp32\.onnx\.data is missing"):
        export(opened(tiny_checkpoint("0.9.5")), copy, transformer="fp16")


@pytest.mark.parametrize("component", ["transformer", "text_encoder"])  # the latter brings the tokenizer
@pytest.mark.parametrize("there", [(), ("b",), ("b/onnx", "b/mine")], ids=["new", "empty", "other"])
def test_interrupted_first_export_leaves_nothing(tiny_checkpoint, tmp_path, monkeypatch, there, component):
    for name in there:
        (tmp_path / name).mkdir(parents=True)

    def cut(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(build, "stream", cut)
    with pytest.raises(KeyboardInterrupt):
        export(opened(tiny_checkpoint("0.9.5")), tmp_path / "b", **{component: "fp32"})
    with pytest.raises(BundleError):
        read_bundle(tmp_path / "b")
    left = [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_dir()]
    if "b/mine" in there:  # not its own: nothing is removed
        assert {"b", "b/onnx", "b/mine"} <= set(left)
    else:
        assert left == list(there) and [*tmp_path.rglob("*.json")] == []


def test_manifest_says_what_made_it(tiny_bundle):
    manifest = json.loads((tiny_bundle("0.9.5") / "bundle.json").read_text())
    assert {"ltxrt", "torch", "onnx", "onnxscript"} <= set(manifest["produced_by"])
    assert manifest["version"] == "0.9.5" and "OpenRail" in manifest["licence"]


def test_of_two_exports_at_once_into_a_new_folder_the_second_is_refused(tiny_checkpoint, tmp_path, no_work):
    """It comes while the first traces; before, each took the other's components out of the bundle."""
    plan = Plan(opened(tiny_checkpoint("0.9.5")), tmp_path / "b", {"transformer": "fp32"})
    refused = []

    def second(_progress):
        thread = threading.Thread(target=another)
        thread.start()
        thread.join()

    def another():
        try:
            export_bundle(plan)
        except BundleError as error:
            refused.append(str(error))

    with pytest.raises(AssertionError, match="work began"):
        export_bundle(plan, second)
    (message,) = refused
    assert "another command is using this bundle" in message


def test_a_weights_map_is_not_written_through_a_link(copy, tiny_checkpoint, tmp_path):
    (tmp_path / "precious").write_text("mine")
    (copy / "onnx" / "vae_encoder.fp16.weights.json").symlink_to(tmp_path / "precious")
    verify(export(opened(tiny_checkpoint("0.9.5")), copy, vae_encoder="fp16"))
    assert (tmp_path / "precious").read_text() == "mine"


def test_scales_that_are_none_are_refused_before_the_work(tiny_checkpoint, tmp_path, no_work):
    (tmp_path / "scales.json").write_text("{}")
    plan = Plan(
        opened(tiny_checkpoint("0.9.5")), tmp_path / "b", {"transformer": "fp8"}, tmp_path / "scales.json"
    )
    with pytest.raises(InputError, match="is not a scales file"):
        export_bundle(plan)
    assert not (tmp_path / "b").exists()
