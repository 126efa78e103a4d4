"""A tiny bundle of hand-written graphs that fit their contracts; real files, real external data, no model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from ltxrt.engines import contract as contracts
from ltxrt.engines.bundle import FAMILY, SCHEMA, Bundle, Graph, Manifest, record, write_bundle
from ltxrt.engines.facts import (
    Facts,
    Pass,
    Preset,
    SchedulerFacts,
    TextEncoderFacts,
    TransformerFacts,
    VaeFacts,
)

HEADER = '<ir_version: 10, opset_import: ["": 23]>'
GRAPHS = {
    "text_encoder": """
        text_encoder (int64[B,T] input_ids, int64[B,T] attention_mask) => (float[B,T,4] hidden_states)
        <float[4] weight = {1, 2, 3, 4}, int64[1] last = {2}> {
            masked = Mul (input_ids, attention_mask)
            floats = Cast <to = 1> (masked)
            column = Unsqueeze (floats, last)
            hidden_states = Mul (column, weight)
        }""",
    "transformer": """
        transformer (float[B,N,3] latents, float[B,K] timesteps, int64[B,N] timestep_index,
                     float[B,T,4] context, bool[B,T] context_mask,
                     float[1,N,2] rope_cos, float[1,N,2] rope_sin,
                     bool[2,3,B] perturbation_mask) => (float[B,N,3] velocity)
        <float[3] weight = {1, 2, 3}, int64[1] last = {2}, int64[2] rest = {1, 2}> {
            rows = GatherElements <axis = 1> (timesteps, timestep_index)
            time = Unsqueeze (rows, last)
            turned = ReduceMean (rope_cos, last)
            text = ReduceMean (context, rest)
            scaled = Mul (latents, weight)
            timed = Add (scaled, time)
            placed = Mul (timed, turned)
            velocity = Add (placed, text)
        }""",
}


@pytest.fixture(scope="session")
def facts() -> Facts:
    return Facts(
        transformer=TransformerFacts(
            layers=2,
            heads=1,
            head_size=4,
            in_channels=3,
            out_channels=3,
            caption_channels=4,
            rope_theta=10000.0,
            rope_max_positions=(20.0, 2048.0, 2048.0),
            causal_rope=False,
            timestep_scale=1000.0,
        ),
        vae=VaeFacts(
            latent_channels=3,
            spatial_compression=32,
            temporal_compression=8,
            latents_mean=(0.0, 0.0, 0.0),
            latents_std=(1.0, 1.0, 1.0),
            timestep_conditioning=True,
            noise_maps=(),
        ),
        text_encoder=TextEncoderFacts(width=4, vocab_size=100, layers=1),
        scheduler=SchedulerFacts(sampler="uniform", shift="sd3", terminal=0.1, allowed_steps=None),
    )


@pytest.fixture(scope="session")
def manifest(facts) -> Manifest:
    """A manifest without components."""
    one = Pass(4, None, 0, 0, (3.0,), (1.0,), (0.7,), None, ((1,),), "attention_values", False, False)
    preset = Preset(
        passes=(one,),
        downscale_factor=1.0,
        adain_factor=1.0,
        tone_map=0.0,
        height=64,
        width=64,
        num_frames=9,
        frame_rate=24.0,
        negative_prompt="",
        max_tokens=8,
        decode_timestep=0.05,
        decode_noise_scale=0.025,
        image_noise_scale=0.15,
    )
    return Manifest(
        schema=SCHEMA,
        family=FAMILY,
        version="tiny",
        licence="none",
        produced_by={"ltxrt": "0"},
        source={"checkpoint": "made up"},
        facts=facts,
        presets={"default": preset},
        tokenizer=None,
        components={},
    )


@pytest.fixture
def put_graph(facts):
    """A function that writes a graph, by default the component's own, and returns its record."""

    def put(root: Path, component: str, precision: str = "fp32", text: str | None = None) -> Graph:
        name = f"{component}.{precision}"
        path = root / "onnx" / f"{name}.onnx"
        path.parent.mkdir(exist_ok=True)
        path.with_suffix(".data").unlink(missing_ok=True)  # onnx appends
        model = onnx.parser.parse_model(HEADER + (text or GRAPHS[component]))
        for tensor in model.graph.initializer:  # only raw bytes can be external, and the parser makes none
            if tensor.name == "weight":
                tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor), "weight"))
        onnx.save(
            model, path, save_as_external_data=True, location=path.with_suffix(".data").name, size_threshold=0
        )
        data = record(root, path.with_suffix(".data"))
        contract = contracts.derive(component, facts).to_json()
        return Graph(record(root, path), (data,), None, contract, None)

    return put


@pytest.fixture
def bundle(tmp_path, manifest, put_graph) -> Bundle:
    """text_encoder and transformer in fp32, and a file that plays the tokenizer."""
    root = tmp_path / "bundle"
    root.mkdir()
    (root / "tokenizer.json").write_text("{}")
    components = {name: {"fp32": put_graph(root, name)} for name in GRAPHS}
    fields = {**vars(manifest), "components": components}
    return write_bundle(root, Manifest(**{**fields, "tokenizer": record(root, root / "tokenizer.json")}))


@pytest.fixture
def feed(facts) -> dict[str, np.ndarray]:
    """A valid feed of the transformer: B=2, N=6, K=2, T=5."""
    sizes = {"B": 2, "N": 6, "K": 2, "T": 5}
    return contracts.derive("transformer", facts).sample(sizes, np.random.default_rng(0))
