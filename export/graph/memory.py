"""The memory of a graph's activations at given sizes, computed without running it.

Every tensor's shape is inferred from concrete inputs (traced graphs leave many open), and every buffer lives
from the node that writes it to the last that reads it, in the graph's order, as in ONNX Runtime. Not counted
are weights, the kernels' workspace, and the savings of fused and in-place operators, so the result is a bound
of the activations alone; with workspace, ONNX Runtime's CPU provider took up to 1.3 times as much.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
from onnx import NodeProto, TypeProto, helper, numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator

from ltxrt.engines.contract import Affine
from ltxrt.engines.errors import InputError

# Operators whose output is the first input's buffer with another shape.
VIEWS = frozenset({"Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"})
INTEGERS = frozenset({ir.DataType.INT32, ir.DataType.INT64})
FAR = 2**10  # a size at which constant parts do not matter
Shapes = dict[str, TypeProto]
Known = dict[str, np.ndarray]


@dataclass(frozen=True)
class Activations:
    """The peak of activations in bytes, including graph inputs and outputs, and the number of elements of
    the largest tensor."""

    bytes: int
    largest_elements: int


@dataclass(frozen=True)
class PerCell:
    """Bounds for one video: `fixed_bytes + bytes_per_cell * cells` bytes alive at once, and
    `elements_per_cell * cells` elements in one tensor, where cells is f·h·w."""

    fixed_bytes: int
    bytes_per_cell: int
    elements_per_cell: int


def peak(model: ir.Model, sizes: Mapping[str, int]) -> Activations:
    """The activations of `model` when its inputs' symbols have `sizes`; initialisers may be without data.

    Raises InputError if a symbol is missing in `sizes`.
    """
    types = _types(model, sizes)
    elements = {name: _elements(kind) for name, kind in types.items()}
    made = [name for name in elements if name not in model.graph.initializers]
    change = [0] * (len(model.graph) + 1)
    for name, first, last in _lifetimes(model):
        size = elements[name] * _item_size(types[name])
        change[first] += size
        change[last + 1] -= size
    return Activations(int(np.cumsum(change).max()), max(elements[name] for name in made))


def per_cell(model: ir.Model) -> PerCell:
    """Bounds over all sizes of one video, for the autoencoder's halves (symbols f, h, w; B is 1).

    Every tensor has (a·f + b)·h·w + c elements; so the bytes alive at a node have this form too, and the peak
    is their maximum. Per cell it is largest either for a single frame or in the limit of many, whichever node
    dominates there, so a bound for these two cases is a bound for all sizes.
    """
    smallest = _of_video(model, 1, 1)
    single, several, many = (_slope(model, frames) for frames in (1, FAR, 2 * FAR))
    growth = [(after - before) // FAR for after, before in zip(many, several)]
    bytes_per_cell, elements_per_cell = map(max, single, growth)
    # At the smallest size the peak includes the constant part of every node.
    return PerCell(smallest[0], bytes_per_cell, max(elements_per_cell, smallest[1]))


def _slope(model: ir.Model, frames: int) -> tuple[int, int]:
    """Bytes and elements of the largest tensor that one more column of FAR rows adds, per row, in a large
    video.
    """
    before, after = (_of_video(model, frames, width) for width in (FAR, 2 * FAR))
    return (after[0] - before[0]) // FAR, (after[1] - before[1]) // FAR


def _of_video(model: ir.Model, frames: int, width: int) -> tuple[int, int]:
    found = peak(model, {"B": 1, "f": frames, "h": 1, "w": width})
    return found.bytes, found.largest_elements


def _types(model: ir.Model, sizes: Mapping[str, int]) -> Shapes:
    """Type and concrete shape of every value: inputs from `sizes`, the others from node to node.

    Integers from which the graph computes shapes are evaluated meanwhile; no other data is read.
    """
    types: Shapes = {v.name or "": _type(v, ir.Shape(_resolved(v, sizes))) for v in model.graph.inputs}
    known: Known = {}
    for name, value in model.graph.initializers.items():
        types[name] = _type(value, value.shape)
        if value.const_value is not None and value.dtype in INTEGERS:
            known[name] = value.const_value.numpy()
    version = model.opset_imports[""]
    for node in map(ir.to_proto, model.graph):
        _infer(node, version, types, known)
    return types


def _resolved(value: ir.Value, sizes: Mapping[str, int]) -> Iterator[int]:
    """The dimensions of a graph input, whose terms are the contract's."""
    for dim in value.shape or ():
        if isinstance(dim, int):
            yield dim
            continue
        term = Affine.parse(str(dim.value))
        if term.symbol not in sizes:
            raise InputError(f"{value.name}: no size was given for {term.symbol!r}; give every symbol's")
        yield term.value(sizes[term.symbol])


def _type(value: ir.Value, shape: ir.Shape | None) -> TypeProto:
    if value.dtype is None or shape is None:
        raise InputError(f"{value.name}: the graph gives no type and shape for it; export it again")
    dims = [dim if isinstance(dim, int) else dim.value for dim in shape]
    return helper.make_tensor_type_proto(value.dtype.value, dims)


def _infer(node: NodeProto, version: int, types: Shapes, known: Known) -> None:
    """Add the outputs of `node` to `types`, and to `known` if they are integers that can be evaluated."""
    names = [name for name in node.input if name]
    schema = onnx.defs.get_schema(node.op_type, version, node.domain)
    data = {name: numpy_helper.from_array(known[name], name) for name in names if name in known}
    opsets = [helper.make_opsetid(node.domain, version)]
    types.update(
        shape_inference.infer_node_outputs(
            schema, node, {name: types[name] for name in names}, data, opset_imports=opsets
        )
    )
    if node.op_type == "Shape":
        dims = np.array(_dims(types[node.input[0]]), np.int64)
        first, last = (_attribute(node, name, default) for name, default in (("start", 0), ("end", None)))
        known[node.output[0]] = dims[first:last]
    elif names and all(name in known for name in names):
        values = ReferenceEvaluator(node).run(None, {name: known[name] for name in names})
        known.update(zip(node.output, map(np.asarray, values)))


def _attribute(node: NodeProto, name: str, default: int | None) -> int | None:
    return next((a.i for a in node.attribute if a.name == name), default)


def _dims(kind: TypeProto) -> list[int]:
    """The dimensions of a value, all of which must be known."""
    dims = kind.tensor_type.shape.dim
    if not kind.tensor_type.HasField("shape") or not all(dim.HasField("dim_value") for dim in dims):
        raise InputError("the graph's shapes depend on its data; its memory cannot be computed beforehand")
    return [dim.dim_value for dim in dims]


def _elements(kind: TypeProto) -> int:
    return math.prod(_dims(kind))


def _item_size(kind: TypeProto) -> int:
    return ir.DataType(kind.tensor_type.elem_type).itemsize.__ceil__()


def _lifetimes(model: ir.Model) -> Iterator[tuple[str, int, int]]:
    """Every buffer by its first value's name, with the first and the last node it must exist for.

    Inputs live throughout, because the caller holds them, and outputs until the end; weights are not counted.
    """
    end = len(model.graph) - 1
    buffer = {name: name for name in model.graph.initializers}
    first = dict.fromkeys((v.name or "" for v in model.graph.inputs), 0)
    last = dict.fromkeys(first, end)
    buffer |= {name: name for name in first}
    for index, node in enumerate(model.graph):
        inputs = [buffer[v.name or ""] for v in node.inputs if v is not None]
        outputs = [v.name or "" for v in node.outputs]
        buffer |= {name: inputs[0] if node.op_type in VIEWS else name for name in outputs}
        first.update((name, index) for name in outputs if node.op_type not in VIEWS)
        last.update((buffer[name], index) for name in outputs)
        last.update((name, index) for name in inputs if last.get(name) != end)
    last.update((buffer[v.name or ""], end) for v in model.graph.outputs)
    return ((name, begin, last[name]) for name, begin in first.items())
