"""Activation scales for FP8: the sampler runs over prompts, and the largest magnitudes it meets are kept.

    python -m ltxrt.parity.calibrate --bundle B --prompts prompts.txt --output scales.json
    ltx-export onnx CHECKPOINT --component transformer --precision fp8 --scales scales.json --output B

The transformer's graph gets one more output, the largest magnitude at the input of every projection that is
to be quantised; the sampler is the real one, over all its timesteps. What is done is in the file after every
prompt, so that an interrupted run goes on where it was.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from onnx import TensorProto, helper

from ltxrt.engines.backend import Engine
from ltxrt.engines.bundle import Bundle, reading_bundle
from ltxrt.engines.command import ltxrt_command
from ltxrt.engines.errors import InputError
from ltxrt.engines.files import atomic_write
from ltxrt.export import quantise
from ltxrt.parity.emulation import beside
from ltxrt.parity.sessions import HostSession
from ltxrt.runtime.pipeline import Event, Pipeline
from ltxrt.runtime.request import Request, Settings

AMAX = "calibration_amax"


class Observed(HostSession):
    """A session (`ltxrt.engines.backend`) of the instrumented graph that keeps the largest magnitudes."""

    def __init__(self, path: Path, names: list[str], threads: int | None) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        options.add_session_config_entry("session.disable_prepacking", "1")
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.amax = np.zeros(len(names), np.float32)

    def run(self, feeds: Mapping[str, Any]) -> np.ndarray:
        velocity, amax = self._session.run(["velocity", AMAX], dict(feeds))
        self.amax = np.maximum(self.amax, np.asarray(amax))
        return np.asarray(velocity)

    def close(self) -> None:
        """The session stays for the next prompt."""


class ObservedPipeline(Pipeline):
    """A pipeline whose transformer is the instrumented one."""

    def __init__(self, bundle: Bundle, session: Observed, threads: int | None) -> None:
        super().__init__(bundle, threads=threads)
        self.session = session

    def _needed(self, settings: Settings) -> list[str]:
        return [component for component in super()._needed(settings) if component != "vae_decoder"]

    def _load(self, component: str, calls: int) -> Engine:
        if component != "transformer":
            return super()._load(component, calls)
        return Engine(self.bundle.contract(component), self.session)


@ltxrt_command("calibrate")
@click.option(
    "--bundle", type=click.Path(path_type=Path), required=True, help="With text encoder and transformer."
)
@click.option("--prompts", type=click.Path(path_type=Path), required=True, help="A prompt a line.")
@click.option(
    "--output", type=click.Path(path_type=Path), required=True, help="The scales file; resumed if there."
)
@click.option("--height", type=int, help="[default: the preset's]")
@click.option("--width", type=int, help="[default: the preset's]")
@click.option("--num-frames", type=int, help="[default: the preset's]")
@click.option("--steps", type=int, help="[default: the preset's]")
@click.option("--preset", default="default", show_default=True)
@click.option("--threads", type=int)
def main(bundle: Path, prompts: Path, output: Path, threads: int | None, **options: Any) -> None:
    """Run the sampler over PROMPTS and keep the largest activations for FP8."""
    with reading_bundle(bundle) as opened:
        _calibrate(opened, prompts, output, threads, options)


def _calibrate(
    opened: Bundle, prompts: Path, output: Path, threads: int | None, options: dict[str, Any]
) -> None:
    texts = _prompts(prompts)
    settings = {name: value for name, value in options.items() if value is not None}
    names = _names(opened)
    state = _resumed(output, opened, settings, names)
    with _instrumented(opened, names) as graph:
        session = Observed(graph, names, threads)
        session.amax = np.array([state["amax"].get(name, 0.0) for name in names], np.float32)
        pipeline = ObservedPipeline(opened, session, threads)
        for number, prompt in enumerate(texts):
            if prompt in state["prompts"]:
                continue
            pipeline.stream(Request(prompt, seed=number, **settings), _counted(number, len(texts)))
            state["prompts"].append(prompt)
            state["amax"] = dict(zip(names, map(float, session.amax)))
            with atomic_write(output) as temporary:
                temporary.write_text(json.dumps(state, indent=1), encoding="utf-8")
    click.echo(f"{output}: {len(names)} projections, {len(state['prompts'])} prompts")


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
    graph, layers = _graph(bundle), bundle.facts.transformer.layers
    projections = quantise.projections({i.name: i for i in graph.graph.initializer}, layers)
    return [*projections, *_attentions(graph, layers)]


def _attentions(model: onnx.ModelProto, layers: int) -> dict[str, str]:
    """Queries, keys and values that FP8 attention quantises → the graph's tensor."""
    found = quantise.attention_inputs(ir.from_proto(model).graph, layers)
    values = {name: node.inputs[i] for name, (node, i) in found.items()}
    return {name: value.name or "" for name, value in values.items() if value is not None}


def _graph(bundle: Bundle) -> onnx.ModelProto:
    return onnx.load(str(bundle.path(bundle.graph("transformer").file)), load_external_data=False)


def _resumed(output: Path, bundle: Bundle, settings: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """What the file holds, if it is of the same graph and settings, or a beginning."""
    fresh = {
        "schema": quantise.SCHEMA,
        "graph": bundle.graph("transformer").file.sha256,
        "weights": [file.sha256 for file in bundle.graph("transformer").data],
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
        raise InputError(f"--output {output}: is no scales file; give another name or delete it") from error
    if not (same and known):
        raise InputError(f"--output {output}: is of another transformer or other settings; give another name")
    return dict(found)


def _counted(number: int, total: int) -> Any:
    def watch(event: Event) -> None:
        if event.step is not None and event.step.index + 1 == event.total:
            click.echo(f"prompt {number + 1}/{total}: {event.total} steps", err=True)

    return watch


@contextmanager
def _instrumented(bundle: Bundle, names: list[str]) -> Iterator[Path]:
    """The transformer's graph with the magnitudes as another output, beside its weights; gone afterwards."""
    original = bundle.path(bundle.graph("transformer").file)
    model = _graph(bundle)
    graph = model.graph
    inputs = {node.input[1]: node.input[0] for node in graph.node if node.op_type == "MatMul"}
    facts = bundle.facts.transformer
    inputs.update(_attentions(model, facts.layers) if facts is not None else {})
    added = [helper.make_node("Constant", [], ["calibration_one"], value_ints=[1])]
    for i, name in enumerate(names):
        added += [
            helper.make_node("Abs", [inputs[name]], [f"calibration_{i}_abs"]),
            helper.make_node("ReduceMax", [f"calibration_{i}_abs"], [f"calibration_{i}_max"], keepdims=0),
            helper.make_node(
                "Reshape", [f"calibration_{i}_max", "calibration_one"], [f"calibration_{i}_row"]
            ),
            helper.make_node("Cast", [f"calibration_{i}_row"], [f"calibration_{i}"], to=TensorProto.FLOAT),
        ]
    added.append(helper.make_node("Concat", [f"calibration_{i}" for i in range(len(names))], [AMAX], axis=0))
    graph.node.extend(added)
    graph.output.append(helper.make_tensor_value_info(AMAX, TensorProto.FLOAT, [len(names)]))
    with beside(original, model) as path:
        yield path


if __name__ == "__main__":
    main()
