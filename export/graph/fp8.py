"""FP8 (E4M3): quantise/dequantise pairs for the projections of a network's middle blocks, and optionally for
the queries, keys and values of their attentions. A family's `Layout` names them.

TensorRT fuses `Quantize → Dequantize → MatMul ← Dequantize(fp8 weight)` into an FP8 product if scales have
the activations' type and nothing is between dequantising and MatMul. Weights are stored as FP8 with a scale
per output channel, computed while they are streamed; activations have one scale each, from calibration. Our
own pass, because ModelOpt's pinned dependencies exclude the onnx and torch used here and its exporter uses
the old tracer.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import onnx_ir as ir
import torch

from ltxrt.engines.errors import InputError, setting
from ltxrt.engines.parsing import json_input

LARGEST = 448.0  # the largest number of E4M3
SCALES_LIMIT = 16 << 20  # bytes
SCHEMA = 1


@dataclass(frozen=True)
class Layout:
    """Which products of a network may be FP8, by the names of its weights.

    weight: matches a projection's weight, its first group the block's number.
    values: matches the weight that makes the values of an attention whose inputs may be FP8 too; its groups
    are the attention's name and the block's number.
    outer: how many blocks of so many at either end stay as they are.
    """

    weight: re.Pattern[str]
    values: re.Pattern[str]
    outer: Callable[[int], int]

    def middle(self, block: str, layers: int) -> bool:
        """Whether the block is one that is quantised."""
        return self.outer(layers) <= int(block) < layers - self.outer(layers)


@dataclass(frozen=True)
class Scales:
    """Largest magnitudes at the inputs of projections, by weight name, and of attentions."""

    amax: Mapping[str, float]

    def of(self, name: str) -> float:
        return self.amax[name]


def projections(layout: Layout, names: Iterable[str], layers: int) -> list[str]:
    """Those of a network's weights that are quantised, where it has so many blocks."""
    matches = ((name, layout.weight.fullmatch(name)) for name in names)
    return [name for name, match in matches if match and layout.middle(match[1], layers)]


def attention_inputs(layout: Layout, graph: ir.Graph, layers: int) -> dict[str, tuple[ir.Node, int]]:
    """Queries, keys and values of the middle blocks' attentions, as `transformer_blocks.3.attn1.q`: the
    operator and which of its inputs.
    """
    found: dict[str, tuple[ir.Node, int]] = {}
    for node in graph:
        if node.op_type != "Attention":
            continue
        match = layout.values.fullmatch(_projection_of(node.inputs[2]))
        if match and layout.middle(match[2], layers):
            found.update({f"{match[1]}.{letter}": (node, i) for i, letter in enumerate("qkv")})
    return found


def unscaled(name: str, node: ir.Node, head_size: int) -> float:
    """The factor from the operator's input to the value that `name` means in a scales file, which has queries
    without attention's scale. A graph applies it before the operator, or leaves it to the operator.
    """
    if not name.endswith(".q"):
        return 1.0
    scale = node.attributes.get("scale")
    return math.sqrt(head_size) * (scale.as_float() if scale is not None else head_size**-0.5)


def _projection_of(value: ir.Value | None) -> str:
    """The name of the weight whose product is `value`, looking through the bias and the rearrangement into
    heads.
    """
    node = value.producer() if value is not None else None
    while node is not None and node.op_type in ("Transpose", "Reshape", "Add"):
        first = node.inputs[0]
        node = first.producer() if first is not None else None
    weight = node.inputs[1] if node is not None and node.op_type == "MatMul" else None
    return weight.name or "" if weight is not None else ""


def read_scales(path: Path, wanted: list[str]) -> Scales:
    """A scales file's magnitudes for `wanted`. Raises InputError for another file, or another model's."""
    try:
        data = json_input.read(path, SCALES_LIMIT)
        amax = {str(name): float(value) for name, value in data["amax"].items()}
        schema = data["schema"]
    except OSError as error:
        raise InputError(f"{setting('scales')} {path}: cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise InputError(
            f"{setting('scales')} {path}: is not a scales file; make one with ltx-parity calibrate"
        ) from error
    missing = [name for name in wanted if name not in amax]
    wrong = [name for name in wanted if not (math.isfinite(amax.get(name, 1.0)) and amax.get(name, 1.0) > 0)]
    if schema != SCHEMA or missing or wrong:
        what = (
            f"{len(missing)} of {len(wanted)} projections are missing"
            if missing
            else "it holds wrong numbers"
        )
        raise InputError(
            f"{setting('scales')} {path}: does not fit this network ({what}); calibrate this one"
        )
    return Scales({name: amax[name] for name in wanted})


def uncalibrated(wanted: list[str]) -> Scales:
    """Scales of 1: activations beyond 448 are clipped, and small ones lose precision."""
    return Scales(dict.fromkeys(wanted, LARGEST))


def insert(
    model: ir.Model,
    scales: Scales,
    base: ir.DataType,
    attentions: Mapping[str, tuple[ir.Node, int]] = MappingProxyType({}),
) -> dict[str, ir.Value]:
    """Quantise the products that read the weights of `scales`; each weight's name → its scale initialiser.
    The inputs of `attentions`, from `attention_inputs`, are quantised too.

    The weights' initialisers become FP8 without data; they and their scales are filled while streaming.
    """
    graph, found, shared = model.graph, {}, {}
    for name, (node, i) in attentions.items():
        value = node.inputs[i]
        node.replace_input_with(i, _activation(graph, node, value, name, scales.of(name) / LARGEST, base))
    for node in list(graph):
        if node.op_type != "MatMul" or node.inputs[1] is None or node.inputs[1].name not in scales.amax:
            continue
        activation, weight = node.inputs[0], node.inputs[1]
        name = weight.name or ""
        if activation not in shared:
            shared[activation] = _activation(
                graph, node, activation, f"{name}.input", scales.of(name) / LARGEST, base
            )
        node.replace_input_with(0, shared[activation])
        node.replace_input_with(1, _weight(graph, node, weight, base))
        found[name] = graph.initializers[f"{name}.scale"]
    return found


def _activation(
    graph: ir.Graph, node: ir.Node, value: ir.Value | None, label: str, scale: float, base: ir.DataType
) -> ir.Value:
    step = _constant(graph, f"{label}_scale", torch.tensor(scale), base)
    zero = _zero(graph)
    quantised = ir.node("QuantizeLinear", [value, step, zero], num_outputs=1, name=f"{label}_quantise")
    restored = ir.node(
        "DequantizeLinear", [quantised.outputs[0], step, zero], num_outputs=1, name=f"{label}_restore"
    )
    quantised.outputs[0].dtype, quantised.outputs[0].shape = (
        ir.DataType.FLOAT8E4M3FN,
        value.shape if value else None,
    )
    restored.outputs[0].dtype, restored.outputs[0].shape = base, value.shape if value else None
    graph.insert_before(node, [quantised, restored])
    return restored.outputs[0]


def _weight(graph: ir.Graph, node: ir.Node, weight: ir.Value, base: ir.DataType) -> ir.Value:
    """The product of the weight's FP8 numbers and a scale per output channel, its last axis."""
    name, shape = weight.name or "", weight.shape
    channels = shape[-1] if shape is not None else None
    weight.dtype = ir.DataType.FLOAT8E4M3FN
    scale = ir.Value(name=f"{name}.scale", shape=ir.Shape([channels]), type=ir.TensorType(base))
    graph.initializers[f"{name}.scale"] = scale
    restored = ir.node(
        "DequantizeLinear", [weight, scale], {"axis": 1}, num_outputs=1, name=f"{name}_restore"
    )
    restored.outputs[0].dtype, restored.outputs[0].shape = base, shape
    graph.insert_before(node, restored)
    return restored.outputs[0]


def _constant(graph: ir.Graph, name: str, number: torch.Tensor, base: ir.DataType) -> ir.Value:
    dtype = torch.float16 if base == ir.DataType.FLOAT16 else torch.bfloat16
    value = ir.Value(name=name, shape=ir.Shape([]), type=ir.TensorType(base))
    value.const_value = ir.tensor(number.to(dtype), name=name)
    graph.initializers[name] = value
    return value


def _zero(graph: ir.Graph) -> ir.Value:
    name = "fp8_zero"
    if name not in graph.initializers:
        value = ir.Value(name=name, shape=ir.Shape([]), type=ir.TensorType(ir.DataType.FLOAT8E4M3FN))
        value.const_value = ir.tensor(torch.zeros((), dtype=torch.float8_e4m3fn), name=name)
        graph.initializers[name] = value
    return graph.initializers[name]


def quantise(weight: torch.Tensor, base: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """A weight (in, out) as FP8 and its scale per output (out,) in `base`, by which it was divided."""
    amax = weight.float().abs().amax(dim=0)
    scale = torch.where(amax > 0, amax / LARGEST, torch.ones_like(amax)).to(base)
    # A scale that is rounded to zero would lose the channel; the smallest positive number does not.
    scale = torch.where(scale == 0, torch.finfo(base).tiny, scale)
    return (weight.float() / scale.float()).clamp(-LARGEST, LARGEST).to(torch.float8_e4m3fn), scale
