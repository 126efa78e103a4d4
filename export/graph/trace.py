"""Traces one component to one ONNX graph, without its weights.

The module is built and traced with fake tensors, so size and time do not depend on the weights; every
parameter becomes an initialiser with a name, a type and a shape but no data. `ltxrt.export.graph.weights`
streams that in.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import onnx_ir as ir
import onnx_ir.passes.common as passes
import torch
from onnxscript import optimizer
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from ltxrt.engines.contract import Affine, Contract
from ltxrt.engines.errors import LtxrtError
from ltxrt.export.graph.layers import transposed_weights

OPSET = 23  # the first with Attention, RMSNormalization and RotaryEmbedding
DTYPES = {"f32": torch.float32, "i64": torch.int64, "bool": torch.bool}
PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Traced:
    """A graph whose initialisers have no data yet, and the names of those that are stored transposed.

    quantised: FP8 weights and the initialisers of their scales, which are filled together.
    """

    model: ir.Model
    transposed: frozenset[str]
    quantised: Mapping[str, ir.Value] = field(default_factory=dict)


def trace(
    build: Callable[[], nn.Module], contract: Contract, precision: str, sizes: Mapping[str, int]
) -> Traced:
    """Trace `build()`'s module with the contract's names and dynamic axes, its weights in `precision`.

    `sizes` gives every symbol a value; they are `ltxrt.export.families.Family.TRACE_SIZES`.
    """
    with FakeTensorMode(), torch.no_grad(), default_dtype(PRECISIONS[precision]), _quiet():
        module = build().eval()
        torch.set_default_dtype(torch.float32)
        feed = {t.name: torch.zeros(t.resolve(sizes), dtype=DTYPES[t.dtype]) for t in contract.inputs}
        shapes = _dynamic_shapes(contract)
        exported = torch.export.export(module, (), feed, dynamic_shapes=shapes, strict=False)
        program = torch.onnx.export(
            exported,
            (),
            kwargs=feed,
            dynamic_shapes=shapes,
            dynamo=True,
            opset_version=OPSET,
            optimize=False,
            verbose=False,
        )
        if program is None:
            raise LtxrtError(f"torch.onnx.export produced no graph of the {contract.component}")
        return Traced(_tidy(program.model, contract), transposed_weights(module))


def _dynamic_shapes(contract: Contract) -> dict[str, dict[int, object]]:
    symbols = {s: torch.export.Dim(s, min=1) for s in contract.symbols}

    def dim(term: str) -> object:
        affine = Affine.parse(term)
        scaled = symbols[affine.symbol] if affine.factor == 1 else affine.factor * symbols[affine.symbol]
        return scaled + affine.offset if affine.offset else scaled

    return {name: {i: dim(t) for i, t in axes.items()} for name, axes in contract.dynamic_axes().items()}


def _tidy(model: ir.Model, contract: Contract) -> ir.Model:
    """Remove the fake data, fold constants, give the outputs and their axes the contract's names."""
    for value in model.graph.initializers.values():
        value.const_value = None
    for output, tensor in zip(model.graph.outputs, contract.outputs):
        output.name = tensor.name
    _simplify(model)
    values = (*model.graph.inputs, *model.graph.outputs)
    for value, tensor in zip(values, (*contract.inputs, *contract.outputs)):
        value.shape = ir.Shape(tensor.shape)
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    for node in model.graph:
        node.metadata_props.clear()
        for value in node.outputs:
            value.shape = _contract_shape(value.shape, contract)
    model.producer_name = "ltxrt"
    model.producer_version = None
    return model


def _contract_shape(shape: ir.Shape | None, contract: Contract) -> ir.Shape | None:
    """`shape` without the tracer's private symbols, whose names change from run to run."""
    if shape is None:
        return None

    def known(dim: int | ir.SymbolicDim) -> bool:
        symbols = [] if isinstance(dim, int) else re.findall(r"[A-Za-z]\w*", str(dim.value))
        return set(symbols) <= set(contract.symbols)

    return ir.Shape([dim if known(dim) else None for dim in shape])


def _simplify(model: ir.Model) -> None:
    """Fold constants and shapes, share equal nodes, remove unused ones.

    onnxscript's `optimize` also runs rewrite rules whose constants match with a tolerance: they take the
    autoencoder's epsilon of 1e-8 for zero and remove the addition. So they are not used.
    """
    passes.InlinePass()(model)
    optimizer.fold_constants_ir(model)
    steps = (
        passes.RemoveUnusedNodesPass(),
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        passes.DeduplicateInitializersPass(),
        passes.CommonSubexpressionEliminationPass(),
        passes.IdentityEliminationPass(),
        passes.RemoveUnusedNodesPass(),
        passes.RemoveUnusedFunctionsPass(),
        passes.RemoveUnusedOpsetsPass(),
        passes.OutputFixPass(),
        passes.NameFixPass(),
    )
    ir.passes.Sequential(*steps)(model)


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the exporter's warnings about unused packages, axes with one symbol, weights without data."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnx_ir", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)


def load_module(module: nn.Module, weights: dict[str, Tensor]) -> nn.Module:
    """`module` with real weights under their official names (checkpoint orientation), for checks in torch."""
    transposed = transposed_weights(module)
    state = {name: w.t().contiguous() if name in transposed else w for name, w in weights.items()}
    module.load_state_dict(state, strict=True, assign=True)
    return module.eval()
