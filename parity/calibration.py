"""Activation scales for FP8: the sampler runs over prompts, and the largest magnitudes it meets are kept.

The transformer's graph gets one more output, the largest magnitude at the input of every projection that is
to be quantised; the sampler is the real one, over all its timesteps. What is done is in the file after every
prompt, so that an interrupted run goes on where it was.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from onnx import TensorProto, helper

from ltxrt.engines.backend import Engine
from ltxrt.engines.bundle import Bundle, Graph
from ltxrt.engines.errors import InputError
from ltxrt.engines.families.ltxv.facts import TransformerFacts
from ltxrt.engines.progress import Progress, Report, unreported
from ltxrt.engines.storage.files import atomic_write
from ltxrt.export.graph import fp8
from ltxrt.export.ltxv.fp8 import LAYOUT
from ltxrt.parity.check.emulation import beside
from ltxrt.parity.check.inputs import HostSession
from ltxrt.runtime.engine_pool import EnginePool
from ltxrt.runtime.ltxv.pipeline import Pipeline
from ltxrt.runtime.ltxv.results import Event
from ltxrt.runtime.request.request import Request

AMAX = "calibration_amax"
STAGE = "sampling"
CALIBRATED = ("fp32", "fp16")


@dataclass(frozen=True)
class Calibrated:
    """How many projections have scales, from how many prompts, those of earlier runs included."""

    projections: int
    prompts: int


class Observed(HostSession):
    """A session (`ltxrt.engines.backend`) of the instrumented graph that keeps the largest magnitudes."""

    def __init__(self, path: Path, names: list[str], threads: int | None) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        options.add_session_config_entry("session.disable_prepacking", "1")
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._outputs = [output.name for output in self._session.get_outputs()]
        self.amax = np.zeros(len(names), np.float32)

    def run(self, feeds: Mapping[str, Any]) -> dict[str, np.ndarray]:
        outputs = dict(zip(self._outputs, self._session.run(self._outputs, dict(feeds)), strict=True))
        self.amax = np.maximum(self.amax, outputs.pop(AMAX))
        return outputs

    def close(self) -> None:
        """The session stays for the next prompt."""


class ObservedEngines(EnginePool):
    """Engines of which the transformer is the instrumented one."""

    def __init__(self, bundle: Bundle, session: Observed, threads: int | None) -> None:
        super().__init__(bundle, backend="onnxruntime", threads=threads)  # on every machine the same scales
        self.session = session

    def precision(self, component: str) -> str:
        if component == "transformer":
            return next(p for p in CALIBRATED if p in self.bundle.components[component])
        return super().precision(component)

    def load(self, component: str, calls: int) -> Engine:
        if component != "transformer":
            return super().load(component, calls)
        return Engine(self.bundle.contract(component), self.session)


def run(
    bundle: Bundle,
    prompts: Path,
    output: Path,
    options: Mapping[str, Any],
    threads: int | None,
    tell: Callable[[str], None],
    report: Report = unreported,
) -> Calibrated:
    """Run the sampler over the lines of `prompts` and write the scales to `output`.

    `options` are fields of a request that the preset gives where they are None. Raises InputError for what
    cannot be calibrated, before any work. `tell` gets a sentence that the user should know before it;
    `report` the steps of all prompts.
    """
    texts = _prompts(prompts)
    if not output.absolute().parent.is_dir():
        raise InputError(f"--output {output}: {output.parent} is no folder; make it, or give another file")
    settings = {name: value for name, value in options.items() if value is not None}
    settings["preset"] = _preset(bundle, options.get("preset"), tell)
    names = _names(bundle)
    state = _resumed(output, bundle, settings, names)
    with _instrumented(bundle, names) as graph:
        session = Observed(graph, names, threads)
        session.amax = np.array([state["amax"].get(name, 0.0) for name in names], np.float32)
        pipeline = Pipeline(bundle, engines=ObservedEngines(bundle, session, threads))
        requests = [Request(prompt, seed=number, **settings) for number, prompt in enumerate(texts)]
        waiting = [request for request in requests if request.prompt not in state["prompts"]]
        total = sum(_steps(pipeline, request) for request in waiting)
        count = itertools.count(1)

        def watch(event: Event) -> None:
            if event.step is not None:
                report(Progress(STAGE, next(count), total, "step"))

        report(Progress(STAGE, 0, total, "step"))
        for request in waiting:
            pipeline.latents(request, watch)
            state["prompts"].append(request.prompt)
            state["amax"] = dict(zip(names, map(float, session.amax)))
            with atomic_write(output) as temporary:
                temporary.write_text(json.dumps(state, indent=1), encoding="utf-8")
    return Calibrated(len(names), len(state["prompts"]))


def _preset(bundle: Bundle, wanted: str | None, tell: Callable[[str], None]) -> str:
    """The preset that was named, or the default; without the upsampler that this needs, the single pass."""
    two_passes = len(bundle.presets["default"].passes) > 1
    if wanted is not None:
        if wanted == "default" and two_passes and "latent_upsampler" not in bundle.components:
            bundle.precision("latent_upsampler")  # raises: one that was named is not replaced
        return wanted
    if not two_passes or "latent_upsampler" in bundle.components or "single-pass" not in bundle.presets:
        return "default"
    tell(
        "the default preset has two passes and the bundle has no latent upsampler between them: calibrating "
        "on --preset single-pass; with ltx-export onnx … --upsampler FILE, on both passes"
    )
    return "single-pass"


def _steps(pipeline: Pipeline, request: Request) -> int:
    """Of all passes."""
    return sum(len(one.sigmas) for one in pipeline.plan(request, ()).passes)


def _prompts(path: Path) -> list[str]:
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--prompts {path}: cannot be read as text ({error})") from error
    texts = list(dict.fromkeys(line for line in lines if line))
    if not texts:
        raise InputError(f"--prompts {path}: is empty; give a prompt a line")
    return texts


def _names(bundle: Bundle) -> list[str]:
    if bundle.facts.transformer is None:
        raise InputError(f"{bundle.root}: has no transformer to calibrate; export it")
    graph, facts = _model(bundle), bundle.facts.transformer
    projections = fp8.projections(LAYOUT, {i.name: i for i in graph.graph.initializer}, facts.layers)
    if not projections:
        raise InputError(
            f"{bundle.root}: a transformer of {facts.layers} layers has none that FP8 quantises, which "
            "leaves the outer ones as they are; calibrate a larger model"
        )
    return [*projections, *_attentions(graph, facts)]


def _attentions(model: onnx.ModelProto, facts: TransformerFacts) -> dict[str, tuple[str, float]]:
    """Queries, keys and values that FP8 attention quantises → the graph's tensor, and what to multiply its
    magnitude by."""
    found = fp8.attention_inputs(LAYOUT, ir.from_proto(model).graph, facts.layers)
    values = {name: (node, node.inputs[i]) for name, (node, i) in found.items()}
    return {
        name: (value.name or "", fp8.unscaled(name, node, facts.head_size))
        for name, (node, value) in values.items()
        if value is not None
    }


def _graph(bundle: Bundle) -> Graph:
    """The transformer's graph that is calibrated: one that ONNX Runtime's CPU runs and that is not FP8."""
    there = bundle.components.get("transformer", {})
    for precision in CALIBRATED:
        if precision in there:
            return there[precision]
    raise InputError(
        f"{bundle.root}: has transformer in {', '.join(there) or 'no precision'}, and calibration runs "
        f"{' or '.join(CALIBRATED)}, on the CPU; add it with: "
        f"{bundle.adding('transformer', CALIBRATED[0])}"
    )


def _model(bundle: Bundle) -> onnx.ModelProto:
    return onnx.load(str(bundle.path(_graph(bundle).file)), load_external_data=False)


def _resumed(output: Path, bundle: Bundle, settings: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """What the file holds, if it is of the same graph and settings, or a beginning."""
    fresh = {
        "schema": fp8.SCHEMA,
        "graph": _graph(bundle).file.sha256,
        "weights": [file.sha256 for file in _graph(bundle).data],
        "settings": settings,
        "prompts": [],
        "amax": {},
    }
    if not output.exists():
        return fresh
    try:
        found = json.loads(output.read_text(encoding="utf-8"))
        same = all(found[key] == fresh[key] for key in ("schema", "graph", "weights", "settings"))
        known = set(found["amax"]) in (set(), set(names)) and isinstance(found["prompts"], list)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"--output {output}: is not a scales file; give another name or delete it"
        ) from error
    if not (same and known):
        raise InputError(f"--output {output}: is of another transformer or other settings; give another name")
    return dict(found)


@contextmanager
def _instrumented(bundle: Bundle, names: list[str]) -> Iterator[Path]:
    """The transformer's graph with the magnitudes as another output, beside its weights; gone afterwards."""
    original = bundle.path(_graph(bundle).file)
    model = _model(bundle)
    graph = model.graph
    inputs = {node.input[1]: (node.input[0], 1.0) for node in graph.node if node.op_type == "MatMul"}
    facts = bundle.facts.transformer
    inputs.update(_attentions(model, facts) if facts is not None else {})
    added = [helper.make_node("Constant", [], ["calibration_one"], value_ints=[1])]
    for i, name in enumerate(names):
        value, factor = inputs[name]
        added += [
            helper.make_node("Abs", [value], [f"calibration_{i}_abs"]),
            helper.make_node("ReduceMax", [f"calibration_{i}_abs"], [f"calibration_{i}_max"], keepdims=0),
            helper.make_node(
                "Reshape", [f"calibration_{i}_max", "calibration_one"], [f"calibration_{i}_row"]
            ),
            helper.make_node(
                "Cast", [f"calibration_{i}_row"], [f"calibration_{i}_float"], to=TensorProto.FLOAT
            ),
            helper.make_node("Constant", [], [f"calibration_{i}_factor"], value_float=factor),
            helper.make_node(
                "Mul", [f"calibration_{i}_float", f"calibration_{i}_factor"], [f"calibration_{i}"]
            ),
        ]
    added.append(helper.make_node("Concat", [f"calibration_{i}" for i in range(len(names))], [AMAX], axis=0))
    graph.node.extend(added)
    graph.output.append(helper.make_tensor_value_info(AMAX, TensorProto.FLOAT, [len(names)]))
    with beside(original, model) as path:
        yield path
