"""The TensorRT session against a device and a package that record calls; names against the real bindings."""

import gc
import threading
from dataclasses import replace

import numpy as np
import pytest
import tensorrt_rtx
from cuda.bindings import runtime as cuda

from ltxrt.engines.backend import load_engine
from ltxrt.engines.contract import Tensor
from ltxrt.engines.errors import EngineError, InputError, InterruptedRunError
from ltxrt.engines.tensorrt import build as trt
from ltxrt.engines.tensorrt import cache
from ltxrt.engines.tensorrt import session as trt_session

STATIC = ("context", "context_mask", "rope_cos", "rope_sin", "timestep_index", "perturbation_mask")


@pytest.fixture
def fake(machines, sessions, transformer):
    machine = machines()
    return sessions(machine)[0], machine, transformer


def feed(contract, tokens, batch=2, text=9):
    return contract.sample({"B": batch, "N": tokens, "K": 1, "T": text}, np.random.default_rng(0))


def names(calls):
    return [call[0] for call in calls]


def runs(machine):
    return [n for n in names(machine.device.calls) if n in ("execute", "begin graph", "end graph", "launch")]


def test_static_inputs_are_uploaded_once_and_nothing_is_recorded_unasked(fake):
    engine, machine, contract = fake
    inputs = feed(contract, 12)
    step = engine.bind(**{name: inputs[name] for name in STATIC})
    moving = {name: inputs[name] for name in inputs if name not in STATIC}
    sizes = sorted(array.nbytes for array in moving.values())
    for _ in range(3):
        machine.device.calls.clear()
        np.testing.assert_array_equal(step(**moving)["velocity"], 2 * inputs["latents"])
        assert sorted(c[1] for c in machine.device.calls if c[0] == "upload") == sizes
        assert names(machine.device.calls)[-2:] == ["download", "wait"]
        assert runs(machine) == ["execute"]


def calls_of(machine, engine, inputs, count=4):
    """What each of `count` equal calls ran."""
    seen = []
    for _ in range(count):
        machine.device.calls.clear()
        np.testing.assert_array_equal(engine(**inputs)["velocity"], 2 * inputs["latents"])
        seen.append(runs(machine))
    return seen


def test_graphs_on_request_repeat_equal_calls(machines, sessions, transformer):
    machine = machines()
    engine, _ = sessions(machine, graphs=True)
    recorded = [["execute"], ["begin graph", "execute", "end graph", "launch"], ["launch"], ["launch"]]
    assert calls_of(machine, engine, feed(transformer, 12)) == recorded


@pytest.mark.parametrize(
    ("settings", "second"),
    [({"fails recorded": True}, ["begin graph", "execute", "end graph", "execute"]),
     ({"capturable": False}, ["execute"])],
)  # fmt: skip
def test_what_cannot_be_recorded_is_enqueued(machines, sessions, transformer, settings, second):
    machine = machines()
    engine, _ = sessions(machine, graphs=True, **settings)
    seen = calls_of(machine, engine, feed(transformer, 12))
    assert seen == [["execute"], second, ["execute"], ["execute"]]


def test_whatever_is_raised_while_recording_the_recording_ends(machines, sessions, transformer):
    machine = machines()
    engine, made = sessions(machine, graphs=True, **{"raises recorded": True})
    inputs = feed(transformer, 12)
    engine(**inputs)
    with pytest.raises(RuntimeError, match="from the package"):
        engine(**inputs)
    assert not machine.device.recording
    made.settings.clear()
    np.testing.assert_array_equal(engine(**inputs)["velocity"], 2 * inputs["latents"])


@pytest.mark.parametrize("graphs", [False, True])
def test_rtx_makes_its_own_graphs(machines, sessions, transformer, graphs):
    machine = machines("tensorrt_rtx")
    engine, made = sessions(machine, graphs=graphs)
    assert calls_of(machine, engine, feed(transformer, 12), 3) == [["execute"]] * 3
    strategies = tensorrt_rtx.CudaGraphStrategy
    wanted = strategies.WHOLE_GRAPH_CAPTURE if graphs else strategies.DISABLED
    assert [config.cuda_graph_strategy for config in made.contexts] == [wanted]


@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize("refuses", ["latents", "context_mask"])
def test_a_failed_call_leaves_the_next_one_whole(machines, sessions, transformer, graphs, refuses):
    """With the failed call's shapes left in the context, the next one gave its first rows and stale ones."""
    machine = machines()
    engine, made = sessions(machine, graphs=graphs)
    large = feed(transformer, 40)
    engine(**large)
    made.settings["refuses"] = refuses
    with pytest.raises(EngineError, match=rf"transformer: tensorrt could not take {refuses} of \(2, "):
        engine(**feed(transformer, 12))
    made.settings.clear()
    later = {**large, "latents": large["latents"] + 1}
    np.testing.assert_array_equal(engine(**later)["velocity"], 2 * later["latents"])


def test_another_size_picks_its_profile_and_drops_the_graph(machines, sessions, transformer):
    machine = machines()
    engine, _ = sessions(machine, graphs=True)
    for _ in range(2):
        engine(**feed(transformer, 12))
    machine.device.calls.clear()
    engine(**feed(transformer, 100))
    assert ("profile", 1) in machine.device.calls and "free graph" in names(machine.device.calls)
    machine.device.calls.clear()
    engine(**feed(transformer, 12))
    assert ("profile", 0) in machine.device.calls and "allocate" not in names(machine.device.calls)
    with pytest.raises(InputError, match=r"no profile of the engine holds .*N=100000"):
        engine(**feed(transformer, 100_000, batch=1))


def test_scratch_is_one_allocation_that_all_engines_share(machines, sessions, transformer):
    machine = machines()
    (engine, _), (other, _) = sessions(machine, graphs=True), sessions(machine)
    engine(**feed(transformer, 50))
    first = machine.scratch.address
    other(**feed(transformer, 12))
    assert machine.scratch.address == first
    for _ in range(2):
        engine(**feed(transformer, 50))
    other(**feed(transformer, 150))  # grows it: the first one's graph would use freed memory
    machine.device.calls.clear()
    engine(**feed(transformer, 50))
    assert "launch" not in names(machine.device.calls) and "scratch" in names(machine.device.calls)


def test_everything_is_freed(machines, sessions, transformer):
    machine = machines()
    (engine, _), (other, _) = sessions(machine), sessions(machine)
    inputs = feed(transformer, 12)
    step = engine.bind(**{name: inputs[name] for name in STATIC})
    before = len(machine.device.memory)
    engine.bind(rope_cos=inputs["rope_cos"])
    gc.collect()
    assert len(machine.device.memory) == before, "what nobody holds any more is freed at once"
    step(**{name: inputs[name] for name in inputs if name not in STATIC})
    engine.close()
    assert set(machine.device.memory) == {machine.scratch.address}, "another engine may still use it"
    other.close()
    assert machine.device.memory == {}
    with pytest.raises(EngineError, match="the engine is closed"):
        engine(**inputs)


def test_what_nobody_holds_is_not_freed_while_another_call_runs(fake):
    engine, machine, contract = fake
    inputs = feed(contract, 12)
    bound = engine.bind(rope_cos=inputs["rope_cos"])
    with machine.turn():
        before = len(machine.device.memory)
        del bound
        gc.collect()
        assert len(machine.device.memory) == before
    assert ("free",) not in machine.device.calls
    engine(**inputs)
    assert machine.device.calls.count(("free",)) == 1


def test_the_last_engine_frees_the_scratch_memory(fake):
    engine, machine, contract = fake
    engine(**feed(contract, 50))
    assert machine.scratch.size > 0
    engine.close()
    assert (machine.scratch.size, machine.device.memory) == (0, {})


@pytest.mark.parametrize("text", [1, 9, 64, 65, 200, 256])
def test_text_is_padded_to_lengths_that_come_again(machines, sessions, transformer, text):
    machine = machines()
    engine, made = sessions(machine)
    inputs = feed(transformer, 12, text=text)
    engine(**inputs)
    step = engine.bind(context=inputs["context"], context_mask=inputs["context_mask"])
    step(**{n: a for n, a in inputs.items() if n not in ("context", "context_mask")})
    (context,) = made.made
    padded = min(-(-text // 64) * 64, 256)
    assert context.shapes["context_mask"] == (2, padded)
    memory = machine.device.memory[context.addresses["context_mask"]]
    mask = np.frombuffer(bytes(memory), np.bool_).reshape(2, padded)
    assert mask[:, :text].all() and not mask[:, text:].any(), "what was added is hidden"


def test_every_output_comes_back_without_the_padding(machines, sessions, transformer):
    echo = Tensor("echo", "f32", ("B", "T", 4))
    contract = replace(transformer, outputs=(*transformer.outputs, echo))
    engine, made = sessions(machines(), contract=contract)
    for text in (70, 9):
        inputs = feed(contract, 12, text=text)
        outputs = engine(**inputs)
        assert made.made[0].shapes["context"][1] == -(-text // 64) * 64
        np.testing.assert_array_equal(outputs["velocity"], 2 * inputs["latents"])
        np.testing.assert_array_equal(outputs["echo"], inputs["context"])


def test_padding_stays_within_every_profile_that_holds_the_text(machines, sessions, transformer, parsed):
    short = tuple(type(p)(p.text, {**p.ranges, "T": (1, 100, 100)}) for p in parsed)
    engine, made = sessions(machines(), chosen=short)
    engine(**feed(transformer, 12, text=70))
    assert made.made[0].shapes["context"][1] == 100
    with pytest.raises(InputError, match="T=101"):
        engine(**feed(transformer, 12, text=101))


def test_threads_take_turns(fake):
    engine, machine, contract = fake
    wrong, inside = [], []
    execute = machine.device.wait

    def wait():
        inside.append(threading.get_ident())
        assert machine.device.thread == inside[-1], "each thread has a GPU of its own in CUDA"
        execute()
        if inside[-1] != threading.get_ident():
            wrong.append("two at once")

    machine.device.wait = wait

    def work(tokens):
        inputs = feed(contract, tokens)
        for _ in range(20):
            if not np.array_equal(engine(**inputs)["velocity"], 2 * inputs["latents"]):
                wrong.append(tokens)

    threads = [threading.Thread(target=work, args=(tokens,)) for tokens in (12, 40, 50, 100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == [] and len(inside) >= 80


def test_an_interrupted_call_returns_nothing_and_the_engine_runs_again_after_resume(fake):
    engine, machine, contract = fake
    inputs, wait = feed(contract, 12), machine.device.wait
    engine(**inputs)

    def wait_and_interrupt():
        wait()
        engine.interrupt()  # while the call is on the GPU

    machine.device.wait = wait_and_interrupt
    with pytest.raises(InterruptedRunError, match="transformer: the call was interrupted"):
        engine(**inputs)
    machine.device.wait = wait
    machine.device.calls.clear()
    with pytest.raises(InterruptedRunError):
        engine(**inputs)
    assert machine.device.calls == [], "nothing was begun"
    engine.resume()
    np.testing.assert_array_equal(engine(**inputs)["velocity"], 2 * inputs["latents"])


CUDA_CALLS = [
    "cudaGetDeviceCount", "cudaStreamCreate", "cudaMalloc", "cudaFree", "cudaMemcpyAsync",
    "cudaStreamSynchronize", "cudaStreamBeginCapture", "cudaStreamEndCapture", "cudaGraphInstantiate",
    "cudaGraphDestroy", "cudaGraphLaunch", "cudaGraphExecDestroy", "cudaGetDeviceProperties", "cudaSetDevice",
    "cudaMemGetInfo",
]  # fmt: skip


def test_calls_are_the_bindings_own(machines, sessions):
    _, made = sessions(machines("tensorrt_rtx"))
    (context,), (config,) = made.made, made.contexts
    for owner, wanted in {
        tensorrt_rtx.Runtime: ["deserialize_cuda_engine", "get_engine_validity"],
        tensorrt_rtx.ICudaEngine: [n for n in dir(made) if n.startswith(("create_", "get_"))],
        tensorrt_rtx.IExecutionContext: [n for n in dir(context) if n.startswith(("set_", "upd", "exec"))],
        tensorrt_rtx.IRuntimeConfig: [n for n in dir(config) if n.startswith(("set_", "create_", "cuda"))],
        tensorrt_rtx.IRuntimeCache: ["serialize", "deserialize"],
        tensorrt_rtx.ExecutionContextAllocationStrategy: ["USER_MANAGED"],
        tensorrt_rtx.CudaGraphStrategy: ["DISABLED", "WHOLE_GRAPH_CAPTURE"],
        cuda: CUDA_CALLS,
        cuda.cudaMemcpyKind: ["cudaMemcpyHostToDevice", "cudaMemcpyDeviceToHost"],
        cuda.cudaStreamCaptureMode: ["cudaStreamCaptureModeThreadLocal"],
    }.items():  # fmt: skip
        assert wanted and [name for name in wanted if not hasattr(owner, name)] == []


def test_without_a_gpu_the_backends_say_so(bundle):
    with pytest.raises(EngineError, match=r"cudaGet\w+ failed|CUDA finds none|no NVIDIA"):
        load_engine(bundle, "transformer", backend="tensorrt_rtx")


def test_the_engine_of_this_gpu_is_looked_for(bundle, monkeypatch):
    asked = []
    monkeypatch.setattr(
        trt, "gpu_name", lambda backend, device: asked.append(device) or "nvidia-geforce-rtx-4090-sm89"
    )
    assert trt_session.target("tensorrt_rtx") == "sm89"
    with pytest.raises(
        InputError, match=r"no tensorrt_rtx engine of transformer fp32 for sm89.*--target sm89"
    ):
        load_engine(bundle, "transformer", backend="tensorrt_rtx", device=1)
    assert asked == [0, 1]
    assert cache.engines(bundle, {}) == []


def test_a_gpu_that_nothing_is_built_for_is_named(bundle, monkeypatch):
    """And no target is advised that build-engines then refuses."""
    monkeypatch.setattr(trt, "gpu_name", lambda backend, device: "nvidia-h200-sm90")
    with pytest.raises(InputError, match=r"this GPU is nvidia-h200-sm90, and tensorrt_rtx builds for sm80, .*"
                       "only; use backend tensorrt$"):  # fmt: skip
        load_engine(bundle, "transformer", backend="tensorrt_rtx")
    monkeypatch.setattr(cache.trt, "version", lambda backend: "11.0")
    with pytest.raises(InputError, match=r"build one with ltx-export build-engines --backend tensorrt$"):
        load_engine(bundle, "transformer", backend="tensorrt")


def test_what_a_device_lacks_is_said(monkeypatch):
    from ltxrt.engines.tensorrt import cuda as device

    gpu = object.__new__(device.CudaDevice)
    failure = type("Status", (int,), {"name": "cudaErrorMemoryAllocation"})(2)
    gpu._cuda = type("Cuda", (), {"cudaMalloc": staticmethod(lambda size: (failure, None))})
    with pytest.raises(EngineError, match=r"cudaMalloc failed with cudaErrorMemoryAllocation: there is no "
                       r"3\.00 GiB left in the GPU's memory; use fewer frames"):  # fmt: skip
        gpu.allocate(3 << 30)
