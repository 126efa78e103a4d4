"""A tiny bundle of hand-written graphs that fit their contracts; real files, real external data, no model.

And a GPU with TensorRT that records what it is asked: `machines`, `sessions`.
"""

from __future__ import annotations

import threading
import types
from pathlib import Path

import numpy as np
import onnx
import pytest
import tensorrt_rtx

from ltxrt.engines import families
from ltxrt.engines.backend import Engine
from ltxrt.engines.bundle import SCHEMA, Bundle, Graph, Manifest, record, write_bundle
from ltxrt.engines.errors import EngineError
from ltxrt.engines.families.ltxv.facts import (
    Facts,
    Pass,
    Preset,
    SchedulerFacts,
    TextEncoderFacts,
    TransformerFacts,
    VaeFacts,
)
from ltxrt.engines.tensorrt import engine as trt_engine
from ltxrt.engines.tensorrt import machine as trt_machine
from ltxrt.engines.tensorrt import profiles
from ltxrt.engines.tensorrt import session as trt_session

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
        family="ltx-video",
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
        contract = families.derive(component, facts).to_json()
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
    return families.derive("transformer", facts).sample(sizes, np.random.default_rng(0))


class FakeDevice:
    """Memory is bytes by address; everything that is asked is noted."""

    def __init__(self):
        self.calls, self.memory, self.next, self.stream, self.free_bytes = [], {}, 4096, 7, 1 << 30
        self.recording = self.spoilt = False

    def use(self):
        self.thread = threading.get_ident()

    def free_memory(self):
        return self.free_bytes

    def allocate(self, size):
        self.next += 1 << 20
        self.memory[self.next] = bytearray(size)
        self.calls.append(("allocate", size))
        return self.next

    def free(self, address):
        del self.memory[address]
        self.calls.append(("free",))

    def upload(self, address, array):
        assert len(self.memory[address]) >= array.nbytes
        self.memory[address][: array.nbytes] = array.tobytes()
        self.calls.append(("upload", array.nbytes))

    def download(self, array, address):
        array.ravel().view(np.uint8)[:] = np.frombuffer(bytes(self.memory[address][: array.nbytes]), np.uint8)
        self.calls.append(("download", array.nbytes))

    def wait(self):
        assert not self.recording, "waiting for a stream that records is an error"
        self.calls.append(("wait",))

    def begin_graph(self):
        assert not self.recording
        self.recording = True
        self.calls.append(("begin graph",))

    def end_graph(self):
        assert self.recording, "it is ended once"
        self.recording = False
        self.calls.append(("end graph",))
        if self.spoilt:
            raise EngineError("CUDA: cudaStreamEndCapture failed with cudaErrorStreamCaptureInvalidated")
        return "graph"

    def launch(self, graph):
        assert not self.recording
        self.calls.append(("launch", graph))

    def free_graph(self, graph):
        self.calls.append(("free graph",))


class FakeContext:
    """Doubles the latents where it runs, whatever the component; `says` is put into the log as it does."""

    def __init__(self, device, settings):
        self.device, self.settings, self.shapes, self.addresses = device, settings, {}, {}

    def set_optimization_profile_async(self, index, stream):
        self.device.calls.append(("profile", index))
        return stream == self.device.stream

    def set_input_shape(self, name, shape):
        self.shapes[name] = shape
        return name != self.settings.get("refuses")

    def update_device_memory_size_for_shapes(self):
        return self.settings.get("scratch", int(np.prod(self.shapes["latents"])))

    def set_device_memory(self, address, size):
        assert len(self.device.memory[address]) >= size
        self.device.calls.append(("scratch", size))

    def set_tensor_address(self, name, address):
        self.addresses[name] = address
        return address in self.device.memory

    def is_stream_capturable(self, stream):
        return self.settings.get("capturable", True)

    def execute_async_v3(self, stream):
        self.device.calls.append(("execute",))
        for message in self.settings.get("says", ()):
            self.settings["log"].log(tensorrt_rtx.ILogger.ERROR, message)
        if self.device.recording and self.settings.get("raises recorded"):
            raise RuntimeError("from the package")
        if self.device.recording and self.settings.get("fails recorded"):
            self.device.spoilt = True
            return False
        count = 4 * int(np.prod(self.shapes["latents"]))
        source = self.device.memory[self.addresses["latents"]][:count]
        doubled = 2 * np.frombuffer(bytes(source), np.float32)
        self.device.memory[self.addresses["velocity"]][:count] = doubled.tobytes()
        if "echo" in self.addresses:  # an output of the text's own shape
            size = 4 * int(np.prod(self.shapes["context"]))
            text = self.device.memory[self.addresses["context"]]
            self.device.memory[self.addresses["echo"]][:size] = text[:size]
        return True


class FakeConfig:
    """A runtime configuration of TensorRT for RTX, and its cache of compiled kernels."""

    def __init__(self):
        self.cuda_graph_strategy = self.strategy = self.cache = None

    def set_execution_context_allocation_strategy(self, strategy):
        self.strategy = strategy

    def create_runtime_cache(self):
        return FakeCache()

    def set_runtime_cache(self, cache):
        self.cache = cache
        return True


class FakeCache:
    content = b"compiled here"

    def deserialize(self, data):
        if data.startswith(b"compiled"):
            self.content = data
        return data.startswith(b"compiled")

    def serialize(self):
        return self.content


class FakeEngine:
    def __init__(self, device, **settings):
        self.device, self.settings, self.contexts, self.made = device, settings, [], []

    def create_runtime_config(self):
        return FakeConfig()

    def create_execution_context(self, given):
        strategy = given.strategy if isinstance(given, FakeConfig) else given
        assert strategy == tensorrt_rtx.ExecutionContextAllocationStrategy.USER_MANAGED
        self.contexts.append(given)
        self.made.append(FakeContext(self.device, self.settings))
        return self.made[-1]

    def get_device_memory_size_for_profile_v2(self, index):
        return 1000 * (index + 1)


def make_machine(backend="tensorrt"):
    """A machine on the fake device. TensorRT proper is RTX's package without what only RTX has."""
    names = {n: getattr(tensorrt_rtx, n) for n in dir(tensorrt_rtx) if not n.startswith("_")}
    if backend == "tensorrt":
        del names["CudaGraphStrategy"]
    names["Runtime"] = lambda log: types.SimpleNamespace(log=log)
    return trt_machine.Machine(backend, FakeDevice(), types.SimpleNamespace(**names))


PROFILES = ("64x96x9", "64..128x96..192x9..33")


@pytest.fixture
def parsed(facts):
    return tuple(profiles.parse(text, facts) for text in PROFILES)


@pytest.fixture
def transformer(facts):
    return families.derive("transformer", facts)


@pytest.fixture
def sessions(transformer, parsed):
    """A function that makes a session of one engine of the transformer, with two profiles."""

    def session(machine, graphs=False, jit=None, chosen=parsed, contract=transformer, **settings):
        fake_engine = FakeEngine(machine.device, log=machine.log, **settings)
        choice = trt_session.Choice(
            chosen,
            lambda: trt_engine.LoadedEngine(machine, fake_engine, contract.component, graphs, jit),
        )
        made = trt_session.TrtSession(machine, contract, [choice])
        return Engine(contract, made), fake_engine

    return session


@pytest.fixture
def machines():
    """A function that makes a machine on the recording device, by its backend's name."""
    return make_machine


@pytest.fixture
def engine_class():
    return FakeEngine
