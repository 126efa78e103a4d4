"""The TensorRT session against a device and a package that record calls; names against the real bindings."""

import dataclasses
import gc
import hashlib
import json

import numpy as np
import pytest
import tensorrt_rtx
from cuda.bindings import runtime as cuda

from ltxrt.engines import cache, device, profiles, trt, trt_session
from ltxrt.engines.backend import Engine, Options, load_engine
from ltxrt.engines.bundle import read_bundle
from ltxrt.engines.errors import EngineError, InputError


class FakeDevice:
    """Memory is bytes by address; everything that is asked is noted."""

    def __init__(self):
        self.calls, self.memory, self.next, self.stream = [], {}, 4096, 7

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
        self.calls.append(("wait",))

    def begin_graph(self):
        self.calls.append(("begin graph",))

    def end_graph(self):
        self.calls.append(("end graph",))
        return "graph"

    def launch(self, graph):
        self.calls.append(("launch", graph))

    def free_graph(self, graph):
        self.calls.append(("free graph",))


class FakeContext:
    """Doubles the latents, whatever the component."""

    def __init__(self, device):
        self.device, self.shapes, self.addresses = device, {}, {}

    def set_optimization_profile_async(self, index, stream):
        self.device.calls.append(("profile", index))
        return stream == self.device.stream

    def set_input_shape(self, name, shape):
        self.shapes[name] = shape
        return True

    def update_device_memory_size_for_shapes(self):
        return int(np.prod(self.shapes["latents"]))

    def set_device_memory(self, address, size):
        assert len(self.device.memory[address]) >= size
        self.device.calls.append(("scratch", size))

    def set_tensor_address(self, name, address):
        self.addresses[name] = address
        return address in self.device.memory

    def execute_async_v3(self, stream):
        self.device.calls.append(("execute",))
        return True


class FakeEngine:
    def __init__(self, device):
        self.device = device

    def create_execution_context(self, strategy):
        assert strategy == tensorrt_rtx.ExecutionContextAllocationStrategy.USER_MANAGED
        return FakeContext(self.device)


@pytest.fixture
def fake(two_pass_bundle):
    """An engine of the transformer on the fake device, with two profiles."""
    bundle = read_bundle(two_pass_bundle)
    contract = bundle.contract("transformer")
    machine = object.__new__(trt_session.Machine)
    machine.backend, machine.device, machine.package = "tensorrt", FakeDevice(), tensorrt_rtx
    machine.scratch = device.Memory(machine.device)
    parsed = tuple(profiles.parse(text, bundle.facts.vae) for text in ("64x96x9", "64..128x96..192x9..33"))
    session = trt_session.TrtSession(machine, FakeEngine(machine.device), contract, parsed)
    return Engine(contract, session), machine, contract


def feed(contract, tokens, batch=2):
    return contract.sample({"B": batch, "N": tokens, "K": 1, "T": 9}, np.random.default_rng(0))


STATIC = ("context", "context_mask", "rope_cos", "rope_sin", "timestep_index", "perturbation_mask")


def names(calls):
    return [call[0] for call in calls]


def test_static_inputs_are_uploaded_once_and_repeated_calls_become_a_graph(fake):
    engine, machine, contract = fake
    inputs = feed(contract, 12)
    step = engine.bind(**{name: inputs[name] for name in STATIC})
    moving = {name: inputs[name] for name in inputs if name not in STATIC}
    sizes = sorted(array.nbytes for array in moving.values())
    seen = []
    for _ in range(4):
        machine.device.calls.clear()
        output = step(**moving)
        assert output.shape == (2, 12, 16) and output.dtype == np.float32
        assert sorted(c[1] for c in machine.device.calls if c[0] == "upload") == sizes
        assert names(machine.device.calls)[-2:] == ["download", "wait"]
        seen.append(
            [n for n in names(machine.device.calls) if n in ("execute", "begin graph", "end graph", "launch")]
        )
    assert seen == [["execute"], ["begin graph", "execute", "end graph", "launch"], ["launch"], ["launch"]]


def test_another_size_picks_its_profile_and_drops_the_graph(fake):
    engine, machine, contract = fake
    for _ in range(2):
        engine(**feed(contract, 12))
    machine.device.calls.clear()
    engine(**feed(contract, 100))
    assert ("profile", 1) in machine.device.calls and "free graph" in names(machine.device.calls)
    machine.device.calls.clear()
    engine(**feed(contract, 12))
    assert ("profile", 0) in machine.device.calls and "allocate" not in names(machine.device.calls)
    with pytest.raises(InputError, match=r"no profile of the engine holds .*N=100000"):
        engine(**feed(contract, 100_000, batch=1))


def test_scratch_is_one_allocation_that_all_engines_share(fake, two_pass_bundle):
    engine, machine, contract = fake
    engine(**feed(contract, 50))
    first = machine.scratch.address
    other = trt_session.TrtSession(machine, FakeEngine(machine.device), contract, engine._session._profiles)
    Engine(contract, other)(**feed(contract, 12))
    assert machine.scratch.address == first
    for _ in range(2):
        engine(**feed(contract, 50))
    Engine(contract, other)(**feed(contract, 150))  # grows it: the first one's graph would use freed memory
    machine.device.calls.clear()
    engine(**feed(contract, 50))
    assert "launch" not in names(machine.device.calls) and "scratch" in names(machine.device.calls)


def test_everything_is_freed(fake):
    engine, machine, contract = fake
    inputs = feed(contract, 12)
    step = engine.bind(**{name: inputs[name] for name in STATIC})
    before = len(machine.device.memory)
    engine.bind(rope_cos=inputs["rope_cos"])
    gc.collect()
    assert len(machine.device.memory) == before, "what nobody holds any more is freed at once"
    step(**{name: inputs[name] for name in inputs if name not in STATIC})
    engine.close()
    assert set(machine.device.memory) == {machine.scratch.address}
    with pytest.raises(EngineError, match="the engine is closed"):
        engine(**inputs)


CUDA_CALLS = [
    "cudaGetDeviceCount", "cudaStreamCreate", "cudaMalloc", "cudaFree", "cudaMemcpyAsync",
    "cudaStreamSynchronize", "cudaStreamBeginCapture", "cudaStreamEndCapture", "cudaGraphInstantiate",
    "cudaGraphDestroy", "cudaGraphLaunch", "cudaGraphExecDestroy", "cudaGetDeviceProperties",
]  # fmt: skip
CONTEXT_CALLS = [name for name in vars(FakeContext) if name.startswith(("set_", "update_", "execute_"))]


def test_calls_are_the_bindings_own():
    for owner, wanted in {
        tensorrt_rtx.Runtime: ["deserialize_cuda_engine"],
        tensorrt_rtx.ICudaEngine: ["create_execution_context"],
        tensorrt_rtx.IExecutionContext: CONTEXT_CALLS,
        tensorrt_rtx.ExecutionContextAllocationStrategy: ["USER_MANAGED"],
        cuda: CUDA_CALLS,
        cuda.cudaMemcpyKind: ["cudaMemcpyHostToDevice", "cudaMemcpyDeviceToHost"],
        cuda.cudaStreamCaptureMode: ["cudaStreamCaptureModeThreadLocal"],
    }.items():  # fmt: skip
        assert wanted and [name for name in wanted if not hasattr(owner, name)] == []


def write_engine(path, profile, **options):
    """A file that stands for an engine, and its record."""
    path.write_bytes(b"engine")
    digest = hashlib.sha256(b"engine").hexdigest()
    names = ("transformer", "fp32", "tensorrt", "1", "sm89", "graph")
    record = cache.Record(cache.SCHEMA, *names, (), (profiles.to_json(profile),), options, sha256=digest)
    path.with_suffix(".json").write_text(json.dumps(dataclasses.asdict(record)))


def test_what_was_not_built_is_not_loaded(two_pass_bundle, tmp_path):
    write_engine(tmp_path / "e.engine", profiles.parse("64x96x9", read_bundle(two_pass_bundle).facts.vae))
    (tmp_path / "e.engine").write_bytes(b"Engine")
    with pytest.raises(EngineError, match="its content is not what was built; delete it and build it again"):
        cache.read(tmp_path / "e.engine")


def test_profiles_come_from_the_engine_s_record(two_pass_bundle, tmp_path, monkeypatch):
    bundle = read_bundle(two_pass_bundle)
    wanted = profiles.parse("64x96x9", bundle.facts.vae)
    write_engine(tmp_path / "e.engine", wanted)
    machine = object.__new__(trt_session.Machine)
    machine.backend, machine.device, machine.package = "tensorrt", FakeDevice(), tensorrt_rtx
    machine.runtime = type(
        "Runtime", (), {"deserialize_cuda_engine": lambda self, data: FakeEngine(machine.device)}
    )()
    monkeypatch.setattr(trt_session.Machine, "of", classmethod(lambda cls, backend: machine))
    options = Options(bundle.contract("transformer"), backend="tensorrt")
    assert trt_session.load(tmp_path / "e.engine", options)._profiles == (wanted,)
    monkeypatch.setattr(machine.runtime, "deserialize_cuda_engine", lambda data: None, raising=False)
    with pytest.raises(EngineError, match=r"does not load e\.engine; it is of another version or GPU"):
        trt_session.load(tmp_path / "e.engine", options)


def test_streamable_weights_get_a_budget_before_the_context(two_pass_bundle, tmp_path, monkeypatch):
    bundle = read_bundle(two_pass_bundle)
    wanted = profiles.parse("64x96x9", bundle.facts.vae)
    machine = object.__new__(trt_session.Machine)
    machine.backend, machine.device, machine.package = "tensorrt", FakeDevice(), tensorrt_rtx

    class Streaming(FakeEngine):
        weight_streaming_budget_v2 = None

        def get_weight_streaming_automatic_budget(self):
            return 123

        def create_execution_context(self, strategy):
            seen.append(self.weight_streaming_budget_v2)
            return super().create_execution_context(strategy)

    machine.runtime = type(
        "Runtime", (), {"deserialize_cuda_engine": lambda s, d: Streaming(machine.device)}
    )()
    monkeypatch.setattr(trt_session.Machine, "of", classmethod(lambda cls, backend: machine))
    options = Options(bundle.contract("transformer"), backend="tensorrt")
    seen = []
    for streaming in (True, False):
        write_engine(tmp_path / "e.engine", wanted, weight_streaming=streaming)
        trt_session.load(tmp_path / "e.engine", options)
    assert seen == [123, None]
    for name in ("weight_streaming_budget_v2", "get_weight_streaming_automatic_budget"):
        assert hasattr(tensorrt_rtx.ICudaEngine, name)


class FakeRefit:
    """`Refitter` and `OnnxParserRefitter` in one, and what they were asked."""

    Logger = tensorrt_rtx.Logger

    def __init__(self, works):
        self.works, self.asked = works, []

    def Refitter(self, engine, log):
        return self

    def OnnxParserRefitter(self, refitter, log):
        assert refitter is self
        return self

    def refit_from_file(self, path):
        self.asked.append(path)
        return self.works

    def refit_cuda_engine(self):
        self.asked.append("refit")
        return True


@pytest.mark.parametrize("works", [True, False])
def test_a_stripped_engine_takes_the_graph_s_weights(two_pass_bundle, works):
    machine = object.__new__(trt_session.Machine)
    machine.backend, machine.package = "tensorrt", FakeRefit(works)
    options = Options(
        read_bundle(two_pass_bundle).contract("transformer"), backend="tensorrt", graph="g.onnx"
    )
    if works:
        trt_session._give_weights(machine, None, options)
        assert machine.package.asked == ["g.onnx", "refit"]
    else:
        with pytest.raises(EngineError, match="could not fill the stripped engine with the weights of"):
            trt_session._give_weights(machine, None, options)
    assert hasattr(tensorrt_rtx.OnnxParserRefitter, "refit_from_file")
    assert hasattr(tensorrt_rtx.Refitter, "refit_cuda_engine")


def test_without_a_gpu_the_backends_say_so(two_pass_bundle):
    with pytest.raises(EngineError, match=r"cudaGet\w+ failed|CUDA finds none|no NVIDIA"):
        load_engine(read_bundle(two_pass_bundle), "transformer", backend="tensorrt_rtx")


def test_the_engine_of_this_gpu_is_looked_for(two_pass_bundle, monkeypatch):
    monkeypatch.setattr(trt, "gpu_name", lambda backend: "nvidia-geforce-rtx-4090-sm89")
    assert trt_session.target("tensorrt_rtx") == "sm89"
    with pytest.raises(InputError, match="no tensorrt_rtx engine of transformer fp32 for sm89"):
        load_engine(read_bundle(two_pass_bundle), "transformer", backend="tensorrt_rtx")
    assert cache.engines(read_bundle(two_pass_bundle), {}) == []
