"""What the exported graphs are made of."""

import json
import shutil

import numpy as np
import onnx
import pytest

from ltxrt.engines.bundle import read_bundle, verify
from ltxrt.engines.families import component_names
from ltxrt.export import components
from ltxrt.export.graph import trace
from ltxrt.export.ltxv.open import open_checkpoint

GRAPHS = ["0.9.0", "0.9.1", "0.9.5"]
TYPES = {"f32": onnx.TensorProto.FLOAT, "i64": onnx.TensorProto.INT64, "bool": onnx.TensorProto.BOOL}
CONSTANTS = {"ones", "encoder.block.0.layer.0.SelfAttention.buckets"}
OPERATORS = {
    "text_encoder": {"Attention", "RMSNormalization", "Gelu"},
    "transformer": {"Attention", "RMSNormalization", "RotaryEmbedding", "LayerNormalization", "Gelu"},
    "vae_encoder": {"Conv"},
    "vae_decoder": {"Conv"},
    "latent_upsampler": {"Conv", "GroupNormalization"},
    "temporal_upsampler": {"Conv", "GroupNormalization"},
}
UPSAMPLERS = ("latent_upsampler", "temporal_upsampler")
CASES = [(v, c) for v in GRAPHS for c in component_names() if c not in UPSAMPLERS or v == "0.9.5"]


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def case(request, tiny_bundle, two_pass_bundle, tiny_checkpoint, tiny_upsampler):
    version, component = request.param
    bundle = read_bundle(two_pass_bundle if component in UPSAMPLERS else tiny_bundle(version))
    folder = tiny_checkpoint(version)
    checkpoint = open_checkpoint(
        folder / "model.safetensors",
        text_encoder=folder / "t5",
        version=version,
        upsamplers=[tiny_upsampler(component)] if component in UPSAMPLERS else [],
    )
    graph = bundle.graph(component)
    model = onnx.load(str(bundle.path(graph.file)), load_external_data=False)
    return component, bundle, graph, model, checkpoint


def external(model):
    return {i.name: i for i in model.graph.initializer if i.data_location == onnx.TensorProto.EXTERNAL}


def test_names_types_and_axes_are_the_contract_s(case):
    component, bundle, _, model, _ = case
    contract = bundle.contract(component)
    for found, wanted in ((model.graph.input, contract.inputs), (model.graph.output, contract.outputs)):
        assert [v.name for v in found] == [t.name for t in wanted]
        for value, tensor in zip(found, wanted):
            kind = value.type.tensor_type
            assert kind.elem_type == TYPES[tensor.dtype]
            axes = tuple(d.dim_param or d.dim_value for d in kind.shape.dim)
            assert axes == tensor.shape


def test_operators_are_onnx_s_own(case):
    component, _, _, model, _ = case
    assert trace.OPSET == 23
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 23)]
    used = {node.op_type for node in model.graph.node}
    assert used >= OPERATORS[component]
    assert not used & {"ConstantOfShape", "GatherND", "Identity"}


def test_nothing_pads(case):
    """ONNX Runtime's CUDA backend has no Pad for bf16, and a graph with one does not load there at all."""
    *_, model, _ = case
    assert "Pad" not in {node.op_type for node in model.graph.node}


def test_attention_leaves_no_scale_to_multiply_with(case):
    """TensorRT's parser multiplies 16-bit queries and keys by the scale's root, which rounds them again."""
    *_, model, _ = case
    for node in (n for n in model.graph.node if n.op_type == "Attention"):
        assert [a.f for a in node.attribute if a.name == "scale"] == [1.0]


def test_rotation_s_heads_are_the_model_s(case):
    """The full width, as one head, is more than the 1024 that ONNX Runtime's CUDA kernel takes."""
    component, bundle, _, model, _ = case
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in model.graph.value_info}
    rotated = [shapes[n.input[0]] for n in model.graph.node if n.op_type == "RotaryEmbedding"]
    facts = bundle.facts.transformer
    assert facts.head_size < facts.width
    assert len(rotated) == (2 * facts.layers if component == "transformer" else 0)
    assert {shape[1] for shape in rotated} <= {1} and {shape[3] for shape in rotated} <= {facts.head_size}


def test_widening_blocks_use_the_layer_norm_operator(case):
    component, bundle, _, model, _ = case
    widening = component == "vae_encoder" and bundle.version in ("0.9.0", "0.9.1")
    widening = widening or (component, bundle.version) == ("vae_decoder", "0.9.0")
    found = sum(n.op_type == "LayerNormalization" for n in model.graph.node)
    assert component == "transformer" or found == (2 if widening else 0)


def test_weights_need_no_transposing(case):
    _, _, _, model, _ = case
    assert transposed_weights(model) == []


def transposed_weights(model):
    """Names of the weights that a Transpose reads, directly or through what does not change their axes."""
    weights = {i.name: i.name for i in model.graph.initializer}
    for node in model.graph.node:  # in topological order
        if node.op_type in ("Cast", "Identity") and node.input[0] in weights:
            weights[node.output[0]] = weights[node.input[0]]
    return [
        weights[n.input[0]] for n in model.graph.node if n.op_type == "Transpose" and n.input[0] in weights
    ]


def test_every_weight_leads_back_to_the_checkpoint(case):
    component, bundle, graph, model, checkpoint = case
    stored = external(model)
    source = components.weights(checkpoint, component)
    assert set(stored) - CONSTANTS == set(source)
    rows = json.loads(bundle.path(graph.weights_map).read_text())
    assert set(rows) == set(source)
    for name, tensor in source.items():
        shape = tensor.shape[::-1] if rows[name]["transposed"] else tensor.shape
        assert tuple(stored[rows[name]["initializer"]].dims) == shape


def test_stored_bytes_are_the_checkpoint_s(case):
    component, bundle, graph, model, checkpoint = case
    data = np.fromfile(bundle.path(graph.data[0]), np.uint8)
    rows = json.loads(bundle.path(graph.weights_map).read_text())
    for name, tensor in components.weights(checkpoint, component).items():
        place = {e.key: e.value for e in external(model)[name].external_data}
        offset, length = int(place["offset"]), int(place["length"])
        assert place["location"] == bundle.path(graph.data[0]).name
        assert offset % (4096 if length >= 4096 else 64) == 0
        wanted = tensor.float32()
        wanted = wanted.T if rows[name]["transposed"] else wanted
        found = data[offset : offset + length].view(np.float32)
        np.testing.assert_array_equal(found, wanted.ravel())


def test_the_norm_s_epsilon_is_in_the_autoencoders(case):
    """onnxscript's rewrite rules take 1e-8 for zero and drop the addition (`trace._simplify`)."""
    component, _, _, model, _ = case
    if not component.startswith("vae"):
        epsilons = {a.f for n in model.graph.node for a in n.attribute if a.name == "epsilon"}
        wanted = 1e-5 if component in UPSAMPLERS else 1e-6
        assert wanted in {round(float(e), 9) for e in epsilons}
        return
    values = {
        i.name: onnx.numpy_helper.to_array(i)
        for i in model.graph.initializer
        if i.name not in external(model)
    }
    added = [n for n in model.graph.node if n.op_type == "Add"]
    tiny = [n for n in added for i in n.input if i in values and 0 < np.abs(values[i]).max() < 1e-7]
    norms = [n for n in model.graph.node if n.op_type == "Sqrt"]
    assert len(norms) > 4 and len(tiny) == len(norms)


def test_checker_accepts_the_file_and_the_hashes_hold(case, tmp_path):
    _, bundle, graph, _, _ = case
    for file in (graph.file, *graph.data):  # copied: the checker refuses files that others link to
        shutil.copy(bundle.path(file), tmp_path)
    onnx.checker.check_model(str(tmp_path / bundle.path(graph.file).name), full_check=True)
    verify(bundle)
