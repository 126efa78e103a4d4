"""Describes an engine: from the record of its build, and from the engine itself if a GPU can load it."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from ltxrt.engines.bundle import Bundle
from ltxrt.engines.contract import DTYPES, Contract
from ltxrt.engines.errors import LtxrtError
from ltxrt.engines.tensorrt import cache
from ltxrt.engines.tensorrt.cache import Found, Record
from ltxrt.engines.tensorrt.profiles import Profile, from_json

# Kinds of layers that take time; the others move or combine values.
HEAVY = (
    "matrix_multiply", "convolution", "attention_input", "attention_output", "normalization",
    "rotary_embedding", "quantize", "dequantize",
)  # fmt: skip
_FUSED = re.compile(r"_mha|fmha|flash", re.IGNORECASE)


def describe(bundle: Bundle, found: Found) -> Iterator[str]:
    """Text lines: the network as given to the builder, memory per profile, the built layers."""
    record = found.record
    if record is None:
        return
    yield from _network(record)
    contract = bundle.contract(record.component)
    graph = bundle.components.get(record.component, {}).get(record.precision)
    per_cell = graph.memory.bytes_per_cell if graph is not None and graph.memory is not None else None
    for data in record.profiles:
        profile = from_json(data, contract)
        yield f"{profile.text}: {_memory(profile, contract, per_cell)}"
    if not found.problem:
        yield from _built(found, record)


def _network(record: Record) -> Iterator[str]:
    for kind in (k for k in HEAVY if k in record.layers):
        yield f"{kind}: {_counts(record.layers[kind])}"
    light = Counter[str]()
    for kind, types in record.layers.items():
        if kind not in HEAVY:
            light.update(types)
    if light:
        yield f"other layers: {_counts(light)}"
    if record.attentions:
        fused = record.attentions - record.decomposed
        yield f"attention: {fused} of {record.attentions} as one fused kernel, or the build would have failed"


def _counts(types: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {name}" for name, number in types.items())


def _memory(profile: Profile, contract: Contract, bytes_per_cell: float | None) -> str:
    """Sizes of inputs and outputs at the profile's largest shapes, and the bound of activations if known."""
    largest = {symbol: r[2] for symbol, r in profile.ranges_of(contract).items()}
    tensors = (*contract.inputs, *contract.outputs)
    size = sum(math.prod(t.resolve(largest)) * DTYPES[t.dtype]().itemsize for t in tensors)
    text = f"inputs and outputs {size / 1e6:.1f} MB"
    if bytes_per_cell is None:
        return text
    cells = math.prod(largest[s] for s in contract.tiles)
    return f"{text}, activations at most {bytes_per_cell * cells / 1e9:.2f} GB (less in tiles)"


def _built(found: Found, record: Record) -> Iterator[str]:
    """The engine's built layers, or a line with the reason why it cannot be loaded here."""
    from ltxrt.engines.tensorrt import machine as trt_machine

    try:
        machine = trt_machine.Machine.of(record.backend)
    except LtxrtError as error:
        yield f"the built layers are seen on a machine with its GPU only: {error}"
        return
    _, data = cache.read(found.path)
    with data, machine.turn():
        engine = machine.runtime.deserialize_cuda_engine(data)
    if engine is None:
        yield f"the built layers are not seen: this machine's {record.backend} does not load the engine"
        return
    yield from built_layers(machine.package, engine)


def built_layers(package: Any, engine: Any) -> Iterator[str]:
    """The built engine's layers by output type, fused attentions, and scratch memory per profile."""
    report = json.loads(
        engine.create_engine_inspector().get_engine_information(package.LayerInformationFormat.JSON)
    )
    layers = [layer for layer in report.get("Layers", []) if isinstance(layer, dict)]
    types: Counter[str] = Counter()
    for layer in layers:
        types.update(str(o.get("Format/Datatype") or o.get("Datatype")) for o in layer.get("Outputs", [])[:1])
    fused = sum(bool(_FUSED.search(json.dumps(layer))) for layer in layers)
    yield f"built: {len(layers)} layers ({_counts(types)}), {fused} of them fused attention"
    for index in range(engine.num_optimization_profiles):
        size = engine.get_device_memory_size_for_profile_v2(index)
        yield f"built: profile {index + 1} takes {size / 1e6:.1f} MB of scratch memory"
