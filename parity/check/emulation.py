"""A 16-bit graph on a CPU as written: fp32 kernels, every result rounded to the graph's own type.

ONNX Runtime's CPU has no bf16, and computes fp16 between casts that it then removes, so that nothing
overflows there that would on a GPU. This shows that a graph's structure, weights, casts, fp32 parts and
quantisation are right where no GPU is; what a GPU's own kernels do with it, it does not show.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import ModelProto, NodeProto, TensorProto, helper, shape_inference

from ltxrt.engines.contract import Contract
from ltxrt.engines.storage.files import temporary_for
from ltxrt.parity.check.inputs import HostSession

BACKEND = "emulated"
_BF16, _FP16, _FLOAT = TensorProto.BFLOAT16, TensorProto.FLOAT16, TensorProto.FLOAT
# precision → the type that is emulated
PRECISIONS = {"bf16": _BF16, "fp8": _BF16, "fp16": _FP16, "fp8-fp16": _FP16}


class EmulatedSession(HostSession):
    """A rewritten graph as an `ltxrt.engines.backend.Session`."""

    def __init__(self, path: Path, contract: Contract, precision: str, threads: int | None) -> None:
        model = onnx.load(str(path), load_external_data=False)
        with beside(path, rounded(model, precision)) as rewritten:
            self._session: Any = session(rewritten, threads)
        self._outputs = [tensor.name for tensor in contract.outputs]

    def run(self, feeds: Mapping[str, Any]) -> dict[str, np.ndarray]:
        return dict(zip(self._outputs, self._session.run(self._outputs, dict(feeds)), strict=True))

    def close(self) -> None:
        self._session = None


def session(path: Path, threads: int | None) -> onnxruntime.InferenceSession:
    """A graph as it is written: optimisations would take a rounding for a pair of casts that does nothing."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


@contextmanager
def beside(original: Path, model: ModelProto) -> Iterator[Path]:
    """Write a changed graph next to `original`, whose external data it shares; gone afterwards."""
    with temporary_for(original) as path:
        onnx.save(model, str(path))
        yield path


def rounded(model: ModelProto, precision: str) -> ModelProto:
    """The graph with fp32 in place of its 16-bit type, and a rounding behind every operator that made it."""
    narrow, graph = PRECISIONS[precision], model.graph
    made = _values(model, narrow)
    renamed = {i.name: f"{i.name}__wide" for i in graph.initializer if i.data_type == narrow}
    nodes = [_cast(name, wide, _FLOAT) for name, wide in renamed.items()]
    for node in graph.node:
        _widen(node, renamed, narrow)
        rounding = [name for name in node.output if name in made]
        for i, name in enumerate(node.output):
            if name in made:
                node.output[i] = f"{name}__exact"
        nodes.append(node)
        for name in rounding:
            nodes.append(_cast(f"{name}__exact", f"{name}__narrow", narrow))
            nodes.append(_cast(f"{name}__narrow", name, _FLOAT))
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    return model


def _values(model: ModelProto, narrow: int) -> set[str]:
    """Names of the operators' outputs that are of the 16-bit type."""
    inferred = shape_inference.infer_shapes(model, strict_mode=False).graph
    typed = (*inferred.value_info, *inferred.output)
    found = {value.name: value.type.tensor_type.elem_type for value in typed}
    return {name for node in model.graph.node for name in node.output if found.get(name) == narrow}


def _widen(node: NodeProto, renamed: Mapping[str, str], narrow: int) -> None:
    """The node with fp32 where it said the 16-bit type."""
    for i, name in enumerate(node.input):
        node.input[i] = renamed.get(name, name)
    for attribute in node.attribute:
        types = attribute.name in ("to", "output_dtype", "softmax_precision", "dtype")
        if types and attribute.i == narrow:
            attribute.i = _FLOAT
        if attribute.HasField("t") and attribute.t.data_type == narrow:
            attribute.t.CopyFrom(_widened(attribute.t))


def _widened(tensor: TensorProto) -> TensorProto:
    return onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor).astype(np.float32), tensor.name)


def _cast(source: str, target: str, to: int) -> NodeProto:
    return helper.make_node("Cast", [source], [target], name=f"cast_{target}", to=to)
