"""A small bundle in every precision on ONNX Runtime: where its operators run, and parity with torch.

An operator that falls back to the CPU between GPU kernels costs a copy there and back: correct, but slow, and
nothing reports it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ltxrt.engines import ort
from ltxrt.engines.bundle import Bundle
from ltxrt.engines.errors import MissingPackageError
from ltxrt.export.ltxv.open import open_checkpoint
from ltxrt.parity.check import inputs, results
from ltxrt.parity.check import run as check
from ltxrt.parity.gpu import models
from ltxrt.parity.gpu.parts import Place, Row, UnavailableError, attempt

COMPONENTS = ("text_encoder", "transformer", "vae_encoder", "vae_decoder")
# Operators that take time. The others move data, or compute shapes and are kept on the CPU on purpose.
HEAVY = frozenset({
    "Attention", "Conv", "FusedConv", "Gelu", "Gemm", "LayerNormalization", "MatMul", "FusedMatMul", "Pad",
    "RMSNormalization", "RotaryEmbedding", "SimplifiedLayerNormalization", "Concat",
})  # fmt: skip
SIZES = {"B": 2, "N": 48, "K": 2, "T": 16, "f": 2, "h": 4, "w": 4}
PLAN = inputs.Plan(((64, 96, 9),), 2)


def run(place: Place) -> Iterator[Row]:
    if not place.cpu:
        available(place)
    precisions = ort.PRECISIONS[place.backend]
    bundle = models.bundle(place, "small-bundle", COMPONENTS, precisions, small=True)
    for component in COMPONENTS:
        for precision in (p for p in precisions if p in bundle.components[component]):
            yield attempt(
                f"{component} {precision}: where it runs",
                partial(_placed, place, bundle, component, precision),
            )
    wanted = [p for p in precisions if not p.startswith("fp8")]
    yield from parity(place, bundle, place.backend, PLAN, *wanted)


def available(place: Place) -> list[Any]:
    """ONNX Runtime's providers for the place's backend; UnavailableError where they cannot be had."""
    try:
        return ort.providers(place.backend)
    except MissingPackageError as error:
        raise UnavailableError(
            f"needs onnxruntime-gpu with its CUDA libraries, and a GPU: {error}"
        ) from error


def _placed(place: Place, bundle: Bundle, component: str, precision: str) -> Row:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(place.work / f"{component}.{precision}")
    path = bundle.path(bundle.components[component][precision].file)
    session = onnxruntime.InferenceSession(str(path), options, providers=available(place))
    contract = bundle.contract(component)
    sizes = {**SIZES, "B": 1} if component.startswith("vae") else SIZES
    outputs = session.run(None, dict(contract.sample(sizes, np.random.default_rng(0))))
    profile = Path(session.end_profiling())
    provider = "CPUExecutionProvider" if place.cpu else "CUDAExecutionProvider"
    here, elsewhere = providers_of(json.loads(profile.read_text(encoding="utf-8")), provider)
    profile.unlink()
    finite = all(np.isfinite(output).all() for output in outputs)
    figures = {"operators": len(here), "elsewhere": ", ".join(sorted(elsewhere)) or "none", "finite": finite}
    passed = bool(here) and finite and not elsewhere & HEAVY
    return Row(f"{component} {precision}: where it runs", passed, figures)


def providers_of(events: list[dict[str, Any]], provider: str) -> tuple[set[str], set[str]]:
    """The kinds of operators that ran on `provider`, and those that ran elsewhere."""
    here: set[str] = set()
    elsewhere: set[str] = set()
    for event in events:
        arguments = event.get("args", {})
        if event.get("cat") == "Node" and "provider" in arguments:
            (here if arguments["provider"] == provider else elsewhere).add(arguments["op_name"])
    return here, elsewhere


def parity(place: Place, bundle: Bundle, backend: str, plan: inputs.Plan, *precisions: str) -> Iterator[Row]:
    """A row of each comparison with torch; no verdict on scales that were not calibrated."""
    file, text_encoder = models.checkpoint_of(place, small=True)
    checkpoint = open_checkpoint(file, None, text_encoder, models.VERSION)
    order = check.Order(bundle, checkpoint, plan, precisions=precisions, backends=(backend,))
    report, _ = check.run(order, lambda _line: None)
    for found in report.checks:
        errors = [call.metrics.relative_l2 for call in found.calls if call.metrics is not None]
        figures = {"relative L2": max(errors, default=float("nan"))}
        passed = None if found.precision.startswith("fp8") else found.status == results.PASSED
        name = f"{found.component} {found.precision}: parity"
        yield Row(name, passed, figures, "; ".join(found.problems)[:300])
