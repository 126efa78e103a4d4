"""Checks a bundle's graphs before a backend parses them: only what export writes is accepted.

A graph is untrusted: control flow may not terminate, other domains and functions are foreign code, and
external data may refer to any file. `OPERATORS` is the one table of what export writes; export checks its own
graphs with it, so that every bundle it makes is accepted. This module knows the graphs' format; what a graph
computes is verified by the parity checks.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path

from ltxrt.engines.bundle import RE_EXPORT, Bundle
from ltxrt.engines.contract import Contract, Tensor
from ltxrt.engines.errors import BundleError
from ltxrt.engines.parsing.wire import Fields, Reader, Shape, Value, WireError, integers, number, text, view
from ltxrt.engines.storage.files import NotRegularError, open_regular

OPSET = 23
MAX_BYTES = 64 << 20  # size limit of a graph without its weights; ours have up to 2 MB, in FP8 up to 20
MAX_ELEMENTS = 1 << 40  # size limit of one weight
MAX_AXES = 8

# Every operator of every component in every precision (a test compares it with exported graphs), and the
# arithmetic, comparison and shape operators that other releases of torch lower the same modules to.
OPERATORS = frozenset((
    "Add", "And", "Attention", "Cast", "Clip", "Concat", "ConstantOfShape", "Conv", "Cos",
    "DequantizeLinear", "Div", "Equal", "Expand", "Gather", "GatherElements", "Gelu", "Greater",
    "GreaterOrEqual", "GroupNormalization", "Identity", "LayerNormalization", "Less", "MatMul", "Max",
    "Min", "Mul", "Neg", "Not", "Or", "Pad", "Pow", "QuantizeLinear", "RMSNormalization", "Range",
    "Reciprocal", "ReduceMean", "ReduceSum", "Relu", "Reshape", "RotaryEmbedding", "Shape", "Sigmoid",
    "Sin", "Slice", "Softmax", "Split", "Sqrt", "Squeeze", "Sub", "Tanh", "Tile", "Transpose", "Unsqueeze",
    "Where",
))  # fmt: skip
# Bytes per element, by ONNX's number of the type: f32, i64, bool, f16, bf16, FP8 (E4M3FN).
_ELEMENT_BYTES = {1: 4, 7: 8, 9: 1, 10: 2, 16: 2, 17: 1}
_ELEMENT = {"f32": 1, "i64": 7, "bool": 9}

# onnx.proto's messages with the fields that export writes, and those without effect (names, comments).
_MODEL = Shape("the model", {1: False, 2: False, 3: False, 4: False, 5: False, 6: False, 7: False, 8: True})
_OPSET = Shape("an opset", {1: False, 2: False})
_GRAPH = Shape("the graph", {1: True, 2: False, 5: True, 10: False, 11: True, 12: True, 13: True})
_NODE = Shape("a node", {1: True, 2: True, 3: False, 4: False, 5: True, 6: False, 7: False})
# Attributes without graphs, tensors, types or references: f, i, s, floats, ints.
_ATTRIBUTE = Shape(
    "an attribute", {1: False, 2: False, 3: False, 4: False, 7: True, 8: True, 13: False, 20: False}
)
_TENSOR = Shape(
    "a weight",
    {1: True, 2: False, 4: True, 5: True, 7: True, 8: False, 9: False, 12: False, 13: True, 14: False},
)
_ENTRY = Shape("external data", {1: False, 2: False})
_VALUE = Shape("an input or output", {1: False, 2: False, 3: False, 4: True})
_TYPE = Shape("a type", {1: False, 6: False})
_TENSOR_TYPE = Shape("a tensor type", {1: False, 2: False})


def check_graph(bundle: Bundle, component: str, precision: str) -> None:
    """Raise BundleError for the first thing in a component's graph that export could not have written.

    To be called before any backend parses the graph. Weights are not read: their locations and sizes must
    fit the files that the manifest records.
    """
    graph = bundle.components[component][precision]
    path = bundle.path(graph.file)
    try:
        check_file(path, bundle.contract(component), {bundle.root / d.path: d.bytes for d in graph.data})
    except WireError as error:
        raise BundleError(
            f"{component}: {path.name} is not a graph that ltxrt exports ({error}); "
            f"copy the bundle again or {RE_EXPORT}"
        ) from error
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror or error})") from error


def check_file(path: Path, contract: Contract, data: Mapping[Path, int]) -> None:
    """`check_graph` of one file, whose external data must be in the files of `data` (path → bytes).

    Raises WireError and OSError.
    """
    _model(memoryview(_read(path)), path.parent, contract, data)


def _read(path: Path) -> bytes:
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_BYTES:
                raise WireError(f"it has {size} bytes, more than {MAX_BYTES >> 20} MiB")
            return file.read(MAX_BYTES)
    except NotRegularError:
        raise WireError("it is not a regular file") from None


def _model(model: memoryview, folder: Path, contract: Contract, data: Mapping[Path, int]) -> None:
    reader = Reader()
    fields = reader.message(model, _MODEL)
    opsets = [reader.message(view(v), _OPSET) for v in fields.get(8, [])]
    versions = [(text(o, 1), number(o, 2)) for o in opsets]
    if versions != [("", OPSET)]:
        found = ", ".join(f"{domain or 'ai.onnx'} {version}" for domain, version in versions) or "none"
        raise WireError(f"its operator sets are {found:.80}, not ai.onnx {OPSET}")
    if 7 not in fields:
        raise WireError("it holds no graph")
    graph = reader.message(view(fields[7][0]), _GRAPH)
    for node in graph.get(1, []):
        _node(reader, reader.message(view(node), _NODE))
    for tensor in graph.get(5, []):
        _weight(reader, reader.message(view(tensor), _TENSOR), folder, data)
    for key, tensors in ((11, contract.inputs), (12, contract.outputs)):
        _signature(reader, graph.get(key, []), tensors)


def _node(reader: Reader, node: Fields) -> None:
    operator, domain = text(node, 4), text(node, 7)
    if domain or operator not in OPERATORS:
        raise WireError(
            f"operator {f'{domain}.' if domain else ''}{operator!r:.60}, which export never writes"
        )
    for attribute in node.get(5, []):
        reader.message(view(attribute), _ATTRIBUTE)


def _weight(reader: Reader, tensor: Fields, folder: Path, data: Mapping[Path, int]) -> None:
    name, kind, axes = text(tensor, 8), number(tensor, 2), integers(tensor.get(1, []))
    if kind not in _ELEMENT_BYTES:
        raise WireError(f"{name!r:.60} is of ONNX's type {kind}, which export never writes")
    if (
        len(axes) > MAX_AXES
        or not all(0 <= n <= MAX_ELEMENTS for n in axes)
        or math.prod(axes) > MAX_ELEMENTS
    ):
        raise WireError(f"{name!r:.60} has an impossible shape")
    if bool(tensor.get(13)) != (number(tensor, 14) == 1):
        raise WireError(f"{name!r:.60} does not say whether its data is in the graph")
    if tensor.get(13):
        _external(reader, tensor, folder, data, math.prod(axes) * _ELEMENT_BYTES[kind])


def _external(reader: Reader, tensor: Fields, folder: Path, data: Mapping[Path, int], nbytes: int) -> None:
    """Check that a weight's bytes are in a recorded file, and as many as its shape takes."""
    name = text(tensor, 8)
    entries = [reader.message(view(v), _ENTRY) for v in tensor[13]]
    where = {text(e, 1): text(e, 2) for e in entries}
    if len(where) < len(entries) or not where.keys() <= {"location", "offset", "length"}:
        raise WireError(f"{name!r:.60} states the location of its data ambiguously")
    location = where.get("location", "")
    size = None if "\0" in location or ".." in location.split("/") else data.get(folder / location)
    if size is None:
        raise WireError(f"{name!r:.60} is in {location!r:.60}, a file that the bundle does not record for it")
    offset, length = _decimal(where.get("offset", "0")), _decimal(where.get("length", str(nbytes)))
    if length != nbytes or offset + length > size:
        raise WireError(f"{name!r:.60} takes {nbytes} bytes, which are not in {location!r:.60}")


def _decimal(digits: str) -> int:
    if not (digits.isascii() and digits.isdigit() and len(digits) < 20):
        raise WireError(f"{digits!r:.60} is not a position in a file")
    return int(digits)


def _signature(reader: Reader, values: list[Value], tensors: tuple[Tensor, ...]) -> None:
    found = {_named_type(reader, reader.message(view(v), _VALUE)) for v in values}
    wanted = {(t.name, _ELEMENT[t.dtype]) for t in tensors}
    if len(found) != len(values) or found != wanted:
        names = {kind: name for name, kind in _ELEMENT.items()}
        there = ", ".join(f"{name!r:.40} {names.get(kind, kind)}" for name, kind in sorted(found)[:12])
        raise WireError(f"it has {there or 'nothing'} where the contract says {', '.join(map(str, tensors))}")


def _named_type(reader: Reader, value: Fields) -> tuple[str, int]:
    kinds = reader.message(view(value.get(2, [memoryview(b"")])[0]), _TYPE)
    if 1 not in kinds:
        raise WireError(f"{text(value, 1)!r:.60} is not a tensor")
    return text(value, 1), number(reader.message(view(kinds[1][0]), _TENSOR_TYPE), 1)
