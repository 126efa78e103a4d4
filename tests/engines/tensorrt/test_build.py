"""What is decided for the network's attentions, seen in the engines that TensorRT for RTX makes of it."""

import re

import onnx
import pytest
from onnx import TensorProto, helper

from ltxrt.engines.contract import Contract, Tensor
from ltxrt.engines.errors import InputError
from ltxrt.engines.tensorrt import build as trt
from ltxrt.engines.tensorrt.profiles import Profile

HEADS, SIZE = 2, 64
SHAPE = ("B", HEADS, "N", SIZE)
CONTRACT = Contract(
    "transformer", tuple(Tensor(x, "f32", SHAPE) for x in "qkv"), (Tensor("y", "f32", SHAPE),), tokens=("N",)
)


def profile(tokens):
    return Profile("made up", {"B": (1, 2, 3), "N": (tokens, 64, 96)})


@pytest.fixture
def attention(tmp_path):
    """quantised inputs of q, k, v → the file of a graph with one attention in bf16."""

    def make(quantised):
        base = TensorProto.BFLOAT16
        nodes = [helper.make_node("Cast", [x], [f"{x}_base"], to=base) for x in "qkv"]
        for x in quantised:
            nodes += [
                helper.make_node("QuantizeLinear", [f"{x}_base", "step", "zero"], [f"{x}_fp8"]),
                helper.make_node("DequantizeLinear", [f"{x}_fp8", "step", "zero"], [f"{x}_restored"]),
            ]
        inputs = [f"{x}_restored" if x in quantised else f"{x}_base" for x in "qkv"]
        nodes.append(helper.make_node("Attention", inputs, ["attended"], scale=1.0))
        nodes.append(helper.make_node("Cast", ["attended"], ["y"], to=TensorProto.FLOAT))
        constants = [
            helper.make_tensor("step", base, [], [2**-7]),
            helper.make_tensor("zero", TensorProto.FLOAT8E4M3FN, [], [0.0]),
        ]
        ends = [
            [helper.make_tensor_value_info(x, TensorProto.FLOAT, SHAPE) for x in names]
            for names in ("qkv", "y")
        ]
        graph = helper.make_graph(nodes, "attention", *ends, constants)
        path = tmp_path / "attention.onnx"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10), path)
        return path

    return make


@pytest.fixture
def fused(monkeypatch, tmp_path):
    """(graph, target, fewest tokens) → the types that each fused attention of its engine reads."""
    package = trt.package("tensorrt_rtx")

    class Log(package.ILogger):
        def __init__(self):
            package.ILogger.__init__(self)
            self.lines = []

        def log(self, severity, message):
            self.lines += message.splitlines()

        def take(self):
            return []

    def build(graph, target, tokens):
        log = Log()
        monkeypatch.setattr(trt.trt_log, "collecting", lambda _: log)
        trt.build(
            graph,
            CONTRACT,
            "tensorrt_rtx",
            target,
            [profile(tokens)],
            trt.BuildOptions(),
            tmp_path / "engine",
        )
        layers = [line.split("Outputs:")[0] for line in log.lines if re.match(r"Name: \w*mha", line)]
        return [re.findall(r"Datatype: (\w+)", layer) for layer in layers]

    return build


@pytest.mark.parametrize("target", ["sm89", "sm120"])
@pytest.mark.parametrize(("quantised", "kind"), [("qkv", "FP8"), ("qk", "BFloat16"), ("", "BFloat16")])
def test_attention_is_computed_in_fp8_where_all_its_inputs_are(attention, fused, target, quantised, kind):
    assert fused(attention(quantised), target, trt.FP8_TOKENS) == [[kind] * 3]


def test_fp8_attention_needs_tokens(attention, fused):
    with pytest.raises(
        InputError, match="takes 32 tokens or more, and a profile begins at 31; give a larger"
    ):
        fused(attention("qkv"), "sm89", trt.FP8_TOKENS - 1)
    assert fused(attention(""), "sm89", 1) == [["BFloat16"] * 3]
