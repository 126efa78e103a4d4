"""Where an error begins: inputs and outputs of every module with weights, in torch and in the graph.

A module and the graph's operator find each other by the weight's name, which a graph keeps in every
precision. The first tensor, in the graph's order, whose error exceeds the component's tolerance names the
culprit. It looks at the graph through ONNX Runtime (16-bit types as `emulation` has them); an error that only
another backend's kernels make is not seen.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper

from ltxrt.engines.errors import LtxrtError
from ltxrt.engines.progress import Progress
from ltxrt.export import components
from ltxrt.parity.check import emulation, reference
from ltxrt.parity.check.inputs import Feed
from ltxrt.parity.check.results import FAILED, Check, Culprit, Report
from ltxrt.parity.check.run import Order, Tell
from ltxrt.parity.check.tolerances import tolerance

_BLOCK = re.compile(r"^(.*?(?:blocks?|layers?)\.\d+)")
_SAME = ("DequantizeLinear", "Cast", "Identity", "Transpose", "Reshape")  # between a weight and its operator
_TINY = 1e-12


@dataclass(frozen=True)
class Anchor:
    """A tensor of the graph that is the input or output of a module with weights."""

    value: str
    module: str
    role: str


def culprits(order: Order, report: Report, feeds: list[Feed], tell: Tell) -> tuple[Culprit, ...]:
    """For every component and precision that failed: where. Nothing where the graph itself is right."""
    failed = {(c.component, c.precision): c for c in report.checks if c.status == FAILED}
    if not failed:
        tell("no component failed; there is nothing to bisect")
    found = []
    for (component, precision), check in failed.items():
        order.progress(Progress(f"looking for the first wrong operator of {component} {precision}"))
        mine = [feed for feed in feeds if feed.component == component]
        culprit = locate(order, component, precision, mine[_worst(check)])
        if culprit is None:
            tell(f"{component} {precision}: the graph itself stays within the tolerance in ONNX Runtime")
        else:
            tell(f"{component} {precision}: {culprit.block or 'outside of blocks'}, {culprit.operator}")
            found.append(culprit)
    return tuple(found)


def _worst(check: Check) -> int:
    """The call with the largest error; the first that could not be compared at all, if there is one."""
    errors = [call.metrics.relative_l2 if call.metrics else math.inf for call in check.calls] or [0.0]
    return errors.index(max(errors))


def locate(order: Order, component: str, precision: str, feed: Feed) -> Culprit | None:
    """The first operator of a graph whose output is not what torch computes; None if there is none."""
    path = order.bundle.path(order.bundle.components[component][precision].file)
    model = onnx.load(str(path), load_external_data=False)
    nodes = {name: node for node in model.graph.node for name in node.output}
    found = anchors(model)
    theirs = _in_torch(reference.module(order.checkpoint, component), feed.inputs)
    ours = _in_graph(path, model, found, precision, feed.inputs, order.threads)
    allowed, compared = _allowed(order, component, precision), 0
    # Powers of two by which a form of the function for this precision multiplies, which round nothing.
    scaled = precision in (components.row(order.checkpoint, component).forms or {})
    for anchor in found:
        wanted, value = theirs.get((anchor.module, anchor.role)), ours[anchor.value]
        if wanted is None or wanted.shape != value.shape:
            continue
        compared += 1
        error = _error(wanted, value, scaled)
        if not error <= allowed:
            node = nodes[anchor.value]
            operator = f"{node.op_type} ({node.name}), {anchor.role} of {anchor.module}"
            block = _BLOCK.match(anchor.module)
            shown = error if math.isfinite(error) else float(np.finfo(np.float64).max)
            return Culprit(component, precision, block[1] if block else "", operator, shown, allowed)
    if not compared:
        raise LtxrtError(f"{component} {precision}: no tensor of the graph has a counterpart in torch")
    return None


def _allowed(order: Order, component: str, precision: str) -> float:
    """The largest error that any output may have."""
    special = order.family.TOLERANCES
    outputs = [tensor.name for tensor in order.bundle.contract(component).outputs]
    return max(tolerance(precision, special.get((component, name))).relative_l2 for name in outputs)


def anchors(model: ModelProto) -> list[Anchor]:
    """The tensors to look at, in the graph's order, each once."""
    order = {name: i for i, node in enumerate(model.graph.node) for name in node.output}
    consumers: dict[str, list[NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            consumers.setdefault(name, []).append(node)
    names = {initialiser.name for initialiser in model.graph.initializer}
    found: dict[str, Anchor] = {}
    for weight in sorted(names):
        module, _, kind = weight.rpartition(".")
        if kind != "weight":
            continue
        for node in _operators(weight, consumers):
            if node.op_type == "Gather":
                continue  # an embedding's input is no number that errs
            output = _with_bias(node, f"{module}.bias", consumers)
            found.setdefault(node.input[0], Anchor(node.input[0], module, "input"))
            found[output] = Anchor(output, module, "output")
    return sorted((a for a in found.values() if a.value in order), key=lambda a: order[a.value])


def _operators(value: str, consumers: Mapping[str, list[NodeProto]]) -> list[NodeProto]:
    """What reads a weight, behind dequantising, casts and transposes."""
    found = []
    for node in consumers.get(value, []):
        passes_on = node.op_type in _SAME and node.input[0] == value
        found += _operators(node.output[0], consumers) if passes_on else [node]
    return found


def _with_bias(node: NodeProto, bias: str, consumers: Mapping[str, list[NodeProto]]) -> str:
    """The operator's output, with its module's bias where that is an operator of its own."""
    after = consumers.get(node.output[0], [])
    adds = [n for n in after if n.op_type == "Add" and bias in n.input]
    return adds[0].output[0] if adds else node.output[0]


def _in_torch(
    module: torch.nn.Module, inputs: Mapping[str, NDArray[Any]]
) -> dict[tuple[str, str], NDArray[np.float32]]:
    """Inputs and outputs of every module with a weight of its own, of its first call."""
    kept: dict[tuple[str, str], NDArray[np.float32]] = {}

    def keep(name: str) -> Any:
        def hook(_module: torch.nn.Module, given: tuple[Any, ...], output: object) -> None:
            if given and isinstance(given[0], torch.Tensor):
                kept.setdefault((name, "input"), given[0].float().numpy())
            if isinstance(output, torch.Tensor):
                kept.setdefault((name, "output"), output.float().numpy())

        return hook

    for name, part in module.named_modules():
        if "weight" in dict(part.named_parameters(recurse=False)):
            part.register_forward_hook(keep(name))
    with torch.no_grad():
        module(**{name: torch.from_numpy(array) for name, array in inputs.items()})
    return kept


def _in_graph(
    path: Path,
    model: ModelProto,
    found: list[Anchor],
    precision: str,
    inputs: Mapping[str, NDArray[Any]],
    threads: int | None,
) -> dict[str, NDArray[np.float32]]:
    """The anchors' values in ONNX Runtime, 16-bit types as written."""
    if precision in emulation.PRECISIONS:
        model = emulation.rounded(model, precision)
    graph = model.graph
    del graph.value_info[:]
    for i, anchor in enumerate(found):
        graph.node.append(helper.make_node("Cast", [anchor.value], [f"anchor_{i}"], to=TensorProto.FLOAT))
        graph.output.append(helper.make_tensor_value_info(f"anchor_{i}", TensorProto.FLOAT, None))
    with emulation.beside(path, model) as changed:
        session = emulation.session(changed, threads)
    values = session.run([f"anchor_{i}" for i in range(len(found))], dict(inputs))
    return {anchor.value: value for anchor, value in zip(found, values)}


def _error(theirs: NDArray[np.float32], ours: NDArray[np.float32], rescaled: bool) -> float:
    """Relative L2 of the deviation; `rescaled` forgives powers of two."""
    wanted, value = theirs.astype(np.float64), ours.astype(np.float64)
    if rescaled and np.linalg.norm(value) > _TINY and np.isfinite(value).all():
        value = value * 2.0 ** round(math.log2(np.linalg.norm(wanted) / np.linalg.norm(value)))
    spread = float(np.linalg.norm(wanted - wanted.mean()))
    return float(np.linalg.norm(value - wanted)) / max(spread, _TINY)
