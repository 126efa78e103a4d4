"""What export writes passes; what it cannot have written is refused before a backend sees it."""

import os
import re

import onnx
import pytest
from onnx import TensorProto, helper

from ltxrt.engines.backend import load_engine
from ltxrt.engines.bundle import read_bundle
from ltxrt.engines.contract import DTYPES
from ltxrt.engines.errors import BundleError
from ltxrt.engines.parsing import graph_check, wire
from ltxrt.engines.parsing.graph_check import OPERATORS, check_graph
from ltxrt.engines.parsing.wire import Reader, Shape, WireError
from ltxrt.export.graph import trace

HIDDEN = "hidden_states"


def exported(tiny_bundle, two_pass_bundle, parity_case):
    folders = [*map(tiny_bundle, ("0.9.0", "0.9.1")), two_pass_bundle, parity_case / "bundle"]
    for bundle in map(read_bundle, folders):
        for component, graphs in bundle.components.items():
            yield from ((bundle, component, precision) for precision in graphs)


def test_every_exported_graph_passes_and_the_table_holds_its_operators(
    tiny_bundle, two_pass_bundle, parity_case
):
    found, pairs = set(), set()
    for bundle, component, precision in exported(tiny_bundle, two_pass_bundle, parity_case):
        check_graph(bundle, component, precision)
        path = bundle.path(bundle.components[component][precision].file)
        found |= {n.op_type for n in onnx.load(path, load_external_data=False).graph.node}
        pairs.add((component, precision))
    assert len(pairs) == 6 + 3 * 2 + 4  # fp32 of all; two more of text and VAE; four more of the transformer
    assert found <= OPERATORS and len(found) > 30
    assert trace.OPSET == graph_check.OPSET
    assert set(graph_check._ELEMENT) == set(DTYPES)


def change(bundle, edit, component="text_encoder"):
    path = bundle.path(bundle.graph(component).file)
    model = onnx.load(path, load_external_data=False)
    edit(model)
    path.write_bytes(model.SerializeToString())


def endless_loop(model):
    """A trip count of its own and a condition that stays true."""
    true = helper.make_tensor("true", TensorProto.BOOL, (), [True])
    turn = helper.make_graph(
        [helper.make_node("Identity", ["going"], ["goes"]), helper.make_node("Identity", ["was"], ["is"])],
        "turn",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, ()),
            helper.make_tensor_value_info("going", TensorProto.BOOL, ()),
            helper.make_tensor_value_info("was", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("goes", TensorProto.BOOL, ()),
            helper.make_tensor_value_info("is", TensorProto.FLOAT, None),
        ],
    )
    model.graph.initializer.append(true)
    last = model.graph.node[-1]
    last.output[0] = "once"
    model.graph.node.append(helper.make_node("Loop", ["", "true", "once"], [HIDDEN], body=turn))


def graph_attribute(model):
    model.graph.node[0].attribute.append(helper.make_attribute("body", model.graph))


def function(model):
    model.functions.append(helper.make_function("", "Mul", ["a"], ["b"], [], [helper.make_opsetid("", 23)]))


def sparse(model):
    model.graph.sparse_initializer.add()


def entry(key, value):
    def edit(model):
        weight = next(t for t in model.graph.initializer if t.name == "weight")
        (found,) = (e for e in weight.external_data if e.key == key)
        found.value = value

    return edit


def twice(model):
    weight = next(t for t in model.graph.initializer if t.name == "weight")
    weight.external_data.add(key="location", value="/etc/passwd")


def set_operator(domain, name):
    def edit(model):
        model.graph.node[0].domain, model.graph.node[0].op_type = domain, name

    return edit


@pytest.mark.parametrize(
    "edit, match",
    [
        (endless_loop, "operator 'Loop', which export never writes"),
        (set_operator("com.microsoft", "Gelu"), r"operator com\.microsoft\.'Gelu'"),
        (set_operator("", "If"), "operator 'If'"),
        (graph_attribute, "field 6 of an attribute"),
        (function, "field 25 of the model"),
        (sparse, "field 15 of the graph"),
        (lambda model: model.opset_import.add(domain="custom", version=1), "custom 1, not ai.onnx 23"),
        (lambda model: setattr(model.opset_import[0], "version", 12), r"ai\.onnx 12, not"),
        (lambda model: model.ClearField("graph"), "holds no graph"),
        (entry("location", "../../outside.bin"), "a file that the bundle does not record"),
        (entry("location", "/etc/passwd"), "a file that the bundle does not record"),
        (entry("location", "other.bin"), "a file that the bundle does not record"),
        (entry("location", "*/_ORT_MEM_ADDR_/*"), "a file that the bundle does not record"),
        (entry("offset", "9" * 19), "takes 16 bytes, which are not in"),
        (entry("offset", "9" * 400), "is not a position in a file"),
        (entry("offset", "-1"), "is not a position in a file"),
        (entry("length", "12"), "takes 16 bytes, which are not in"),
        (twice, "states the location of its data ambiguously"),
        (lambda model: setattr(model.graph.input[0], "name", "ids"), "where the contract says input_ids"),
        (lambda model: model.graph.input.pop(), "where the contract says input_ids"),
        (lambda model: model.graph.output.add(name="more"), "is not a tensor"),
        (lambda model: model.graph.initializer[0].dims.extend([2**40, 2**40]), "an impossible shape"),
        (lambda model: model.graph.initializer[0].dims.append(-1), "an impossible shape"),
        (lambda model: setattr(model.graph.initializer[0], "data_type", 8), "of ONNX's type 8"),
    ],
)  # fmt: skip
def test_what_export_does_not_write_is_refused(bundle, edit, match):
    check_graph(bundle, "text_encoder", "fp32")
    change(bundle, edit)
    with pytest.raises(BundleError, match=f"^text_encoder: text_encoder.fp32.onnx is not a graph .*{match}"):
        load_engine(bundle, "text_encoder")


def test_a_graph_given_twice_is_refused_and_not_merged(bundle):
    """A protobuf parser would merge the two: what is checked would not be what runs."""
    path = bundle.path(bundle.graph("text_encoder").file)
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(BundleError, match="twice"):
        check_graph(bundle, "text_encoder", "fp32")


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"\xff" * 100, b"\x3a\xff\x01", b"\x0b"])
def test_bytes_that_are_no_graph_are_refused(bundle, content):
    bundle.path(bundle.graph("text_encoder").file).write_bytes(content)
    with pytest.raises(BundleError, match="not a graph that ltxrt exports"):
        check_graph(bundle, "text_encoder", "fp32")


def test_a_pipe_is_not_waited_for(bundle):
    path = bundle.path(bundle.graph("text_encoder").file)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(BundleError, match="not a regular file"):
        check_graph(bundle, "text_encoder", "fp32")


def test_size_and_fields_are_bounded(bundle, monkeypatch):
    monkeypatch.setattr(wire, "FIELDS", 50)
    with pytest.raises(BundleError, match="more than 50 fields"):
        check_graph(bundle, "text_encoder", "fp32")
    monkeypatch.setattr(graph_check, "MAX_BYTES", 100)
    with pytest.raises(BundleError, match="bytes, more than"):
        check_graph(bundle, "text_encoder", "fp32")


def test_every_cut_and_changed_byte_is_refused_or_read_in_one_sentence(bundle):
    path = bundle.path(bundle.graph("text_encoder").file)
    whole, refused = path.read_bytes(), 0
    for i in range(0, len(whole), 3):
        for content in (whole[:i], whole[:i] + bytes([whole[i] ^ 0x55]) + whole[i + 1 :]):
            path.write_bytes(content)
            try:
                check_graph(bundle, "text_encoder", "fp32")
            except BundleError as error:
                refused += 1
                assert len(str(error)) < 600 and not re.search(r"\n", str(error))
    assert refused > len(whole) // 3


@pytest.mark.parametrize(
    "data", [b"\x08", b"\x08" + b"\xff" * 11, b"\x12\x05ab", b"\x0b", b"\x10\x01\x10\x01"]
)
def test_the_reader_refuses_broken_messages(data):
    with pytest.raises(WireError):
        Reader().message(memoryview(data), Shape("it", {1: True, 2: False}))


def test_the_reader_reads_what_protobuf_writes():
    tensor = helper.make_tensor("x", TensorProto.FLOAT, (3, 300), [0.0] * 900)
    known = Shape("it", {1: True, 2: False, 4: True, 8: False})
    fields = Reader().message(memoryview(tensor.SerializeToString()), known)
    assert wire.integers(fields[1]) == [3, 300] == wire.integers([memoryview(b"\x03\xac\x02")])
    assert (wire.number(fields, 2), wire.text(fields, 8)) == (1, "x")
