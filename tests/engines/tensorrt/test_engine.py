"""Loading engines, choosing among them, and what TensorRT says of them; on the recording device."""

import dataclasses
import hashlib
import json
import types
from functools import partial

import numpy as np
import pytest
import tensorrt_rtx

from ltxrt.engines.backend import Engine, Options
from ltxrt.engines.errors import EngineError, InputError
from ltxrt.engines.tensorrt import cache, jit, profiles
from ltxrt.engines.tensorrt import engine as trt_engine
from ltxrt.engines.tensorrt import log as trt_log
from ltxrt.engines.tensorrt import machine as trt_machine
from ltxrt.engines.tensorrt import session as trt_session

RTX = "tensorrt_rtx"


def feed(contract, tokens, batch=2):
    return contract.sample({"B": batch, "N": tokens, "K": 1, "T": 9}, np.random.default_rng(0))


def write_engine(root, *held, name="e", **options):
    """A file that stands for an engine of the bundle at `root`, and its record."""
    path = root / "engines" / "tensorrt" / "sm89" / f"{name}.engine"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"engine")
    digest = hashlib.sha256(b"engine").hexdigest()
    names = ("transformer", "fp32", "tensorrt", "1", "sm89", "graph")
    record = cache.Record(
        cache.SCHEMA, *names, (), tuple(map(profiles.to_json, held)), options, bytes=6, sha256=digest
    )
    path.with_suffix(".json").write_text(json.dumps(dataclasses.asdict(record)))
    return path


@pytest.fixture
def loading(machines, monkeypatch, engine_class):
    """A function that makes the machine that `load` takes, whose runtime gives `engine`."""

    def make(backend="tensorrt", engine=engine_class, says=()):
        machine = machines(backend)
        made = []

        def deserialize(data):
            assert bytes(data) == b"engine"
            for message in says:
                machine.log.log(tensorrt_rtx.ILogger.ERROR, message)
            made.append(engine and engine(machine.device, log=machine.log))
            return made[-1]

        machine.runtime.deserialize_cuda_engine = deserialize
        monkeypatch.setattr(trt_machine.Machine, "of", classmethod(lambda cls, backend, index: machine))
        return machine, made

    return make


def test_what_was_not_built_is_not_loaded(parsed, tmp_path):
    path = write_engine(tmp_path, parsed[0])
    for content in (b"Engine", b"eng", b""):
        path.write_bytes(content)
        with pytest.raises(EngineError, match="its content is not what was built; delete it and build it"):
            cache.read(path)


def test_profiles_come_from_the_engine_s_record(loading, transformer, parsed, tmp_path):
    loading()
    session = trt_session.load(write_engine(tmp_path, *parsed), Options(transformer))
    assert [choice.profiles for choice in session._choices] == [parsed]


@pytest.mark.parametrize(
    ("says", "error"),
    [
        (
            (),
            r"does not load e\.engine: of another version or GPU\? build it again with ltx-export",
        ),
        (("Engine built with 1.6",), r"does not load e\.engine: Engine built with 1\.6$"),
        (("CUDA failure 2: out of memory",), "out of GPU memory; use fewer frames, .*a smaller precision"),
        (("[defaultAllocator] OutOfMemory",), "out of GPU memory"),
    ],
)
def test_why_an_engine_is_refused_is_said(loading, transformer, parsed, tmp_path, says, error):
    loading(engine=None, says=says)
    with pytest.raises(EngineError, match=error):
        trt_session.load(write_engine(tmp_path, parsed[0]), Options(transformer, backend="tensorrt"))


def test_the_package_itself_says_what_is_wrong_with_an_engine():
    """The real TensorRT for RTX, which needs no GPU for that."""
    log = trt_log.collecting(tensorrt_rtx)
    runtime = tensorrt_rtx.Runtime(log)
    assert trt_log.invalidity(tensorrt_rtx, runtime, b"engine") == ["it is no whole engine: build it again"]
    known = tensorrt_rtx.EngineInvalidityDiagnostics.__members__
    assert set(known) == set(trt_log._DIAGNOSTICS)
    everything = types.SimpleNamespace(get_engine_validity=lambda data: (None, 5))
    assert len(trt_log.invalidity(tensorrt_rtx, everything, b"")) == 2
    assert trt_log.invalidity(tensorrt_rtx, object(), b"") == []


@pytest.mark.parametrize(
    ("says", "error"),
    [("kernel failed", "transformer: tensorrt could not run: kernel failed"),
     ("Cuda Runtime (out of memory)", "could not run: out of GPU memory; use fewer frames")],
)  # fmt: skip
def test_an_error_that_is_only_logged_ends_the_call(machines, sessions, transformer, says, error):
    """The package reports success beside it."""
    machine = machines()
    engine, made = sessions(machine, says=[says])
    inputs = feed(transformer, 12)
    with pytest.raises(EngineError, match=error):
        engine(**inputs)
    del made.settings["says"]
    np.testing.assert_array_equal(engine(**inputs)["velocity"], 2 * inputs["latents"])


def test_no_scratch_memory_is_an_error_where_one_was_logged(machines, sessions, transformer):
    machine = machines()
    engine, made = sessions(machine, scratch=0)
    engine(**feed(transformer, 12))
    assert ("scratch", 1000) in machine.device.calls, "what the profile takes at most"
    made.made[0].update_device_memory_size_for_shapes = lambda: (
        machine.log.log(tensorrt_rtx.ILogger.ERROR, "shapes are missing") or 0
    )
    with pytest.raises(
        EngineError, match="could not say how much scratch memory it needs: shapes are missing"
    ):
        engine(**feed(transformer, 13))


def test_of_several_engines_the_one_that_holds_the_call_is_loaded(loading, transformer, facts, tmp_path):
    """And no other one: loading takes long, and both may not fit."""
    machine, made = loading()
    paths = [
        write_engine(tmp_path, profiles.parse(text, facts), name=text) for text in ("64x96x9", "512x768x97")
    ]
    session = trt_session.load(paths[0], Options(transformer, others=(paths[1],)))
    engine = Engine(transformer, session)
    step = engine.bind(context=feed(transformer, 4992)["context"])
    assert made == [], "which is only known with the first call"
    large, small = feed(transformer, 4992), feed(transformer, 12)
    step(**{n: a for n, a in large.items() if n != "context"})
    np.testing.assert_array_equal(engine(**large)["velocity"], 2 * large["latents"])
    assert len(made) == 1
    np.testing.assert_array_equal(engine(**small)["velocity"], 2 * small["latents"])
    assert len(made) == 2
    with pytest.raises(InputError, match=r"no profile of the engine holds .*N=500000.*64x96x9, 512x768x97"):
        engine(**feed(transformer, 500_000, batch=1))
    engine.close()
    assert machine.device.memory == {}


class Streaming:
    """An engine whose weights stream; the scratch memory that it asks for depends on their budget."""

    weight_streaming_budget_v2 = None
    streamable_weights_size = 1 << 30

    def __init__(self, base, device, **settings):
        self.base, self.seen = base(device, **settings), []

    def get_device_memory_size_for_profile_v2(self, index):
        assert self.weight_streaming_budget_v2 == 0
        return 100_000 * (index + 1)

    def create_execution_context(self, strategy):
        self.seen.append(self.weight_streaming_budget_v2)
        return self.base.create_execution_context(strategy)


@pytest.mark.parametrize(
    ("free", "budget"), [(1 << 40, 1 << 30), (1 << 20, None), (150_000, 0)], ids=["ample", "some", "none"]
)
def test_streamed_weights_get_what_the_gpu_has_beside_everything_else(
    loading, engine_class, transformer, parsed, tmp_path, free, budget
):
    machine, made = loading(engine=partial(Streaming, engine_class))
    machine.device.free_bytes = free
    path = write_engine(tmp_path, *parsed, weight_streaming=True)
    trt_session.load(path, Options(transformer))
    io = 0
    for profile in parsed:
        sizes = {symbol: largest for symbol, (_, _, largest) in profile.ranges.items()}
        inputs = transformer.sample(sizes, np.random.default_rng(0)).values()
        io = max(io, sum(a.nbytes for a in inputs) + 4 * 3 * sizes["B"] * sizes["N"])
    assert made[0].seen == [(1 << 20) - 200_000 - io if budget is None else budget]


def test_weights_that_are_not_streamed_get_no_budget(loading, engine_class, transformer, parsed, tmp_path):
    _, made = loading(engine=partial(Streaming, engine_class))
    trt_session.load(write_engine(tmp_path, *parsed), Options(transformer))
    assert made[0].seen == [None]
    for name in ("weight_streaming_budget_v2", "streamable_weights_size"):
        assert hasattr(tensorrt_rtx.ICudaEngine, name)


@pytest.mark.parametrize("streaming", [False, True])
def test_streamed_weights_are_never_recorded(
    loading, engine_class, transformer, parsed, tmp_path, monkeypatch, streaming
):
    monkeypatch.setenv(trt_session.GRAPHS, "1")
    machine, _ = loading(engine=partial(Streaming, engine_class))
    path = write_engine(tmp_path, *parsed, weight_streaming=streaming)
    engine = Engine(transformer, trt_session.load(path, Options(transformer)))
    for _ in range(2):
        engine(**feed(transformer, 12))
    assert (("begin graph",) in machine.device.calls) is not streaming


def test_what_rtx_compiled_is_kept_for_the_next_process(machines, sessions, tmp_path):
    path = tmp_path / "e.runtime"
    engine, _ = sessions(machines(RTX), jit=path)
    assert not path.exists()
    engine.close()
    assert jit.read(path) == b"compiled here"
    stamp = path.stat().st_mtime_ns
    engine, made = sessions(machines(RTX), jit=path)
    assert made.contexts[0].cache.content == b"compiled here"
    engine.close()
    assert path.stat().st_mtime_ns == stamp, "nothing is new"
    made = sessions(machines("tensorrt"), jit=path)[1]
    assert made.contexts == [tensorrt_rtx.ExecutionContextAllocationStrategy.USER_MANAGED]


@pytest.mark.parametrize(
    "spoil", ["changed", "cut", "empty", "a folder", "a link", "too large", "of another GPU"]
)
def test_a_cache_that_cannot_be_used_is_no_failure(machines, sessions, tmp_path, monkeypatch, spoil):
    path = tmp_path / "e.runtime"
    jit.write(path, b"compiled there" if spoil != "of another GPU" else b"elsewhere")
    content = path.read_bytes()
    if spoil == "a folder":
        path.unlink()
        path.mkdir()
    elif spoil == "a link":
        path.rename(tmp_path / "other")
        path.symlink_to(tmp_path / "other")
    elif spoil == "too large":
        monkeypatch.setattr(jit, "LIMIT", 5)
    elif spoil != "of another GPU":
        path.write_bytes({"changed": content[:-1] + b"!", "cut": content[:20], "empty": b""}[spoil])
    engine, made = sessions(machines(RTX), jit=path)
    assert made.contexts[0].cache.content == b"compiled here"
    engine.close()
    if spoil in ("changed", "cut", "empty", "of another GPU"):
        assert jit.read(path) == b"compiled here"


class FakeRefit:
    """`Refitter` and `OnnxParserRefitter` in one, and what they were asked."""

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
def test_a_stripped_engine_takes_the_graph_s_weights(machines, transformer, works):
    machine = machines()
    machine.package = FakeRefit(works)
    options = Options(transformer, backend="tensorrt", graph="g.onnx")
    if works:
        trt_engine._give_weights(machine, None, options)
        assert machine.package.asked == ["g.onnx", "refit"]
    else:
        with pytest.raises(
            EngineError, match=r"could not fill the stripped engine with the weights of g\.onnx"
        ):
            trt_engine._give_weights(machine, None, options)
    assert hasattr(tensorrt_rtx.OnnxParserRefitter, "refit_from_file")
    assert hasattr(tensorrt_rtx.Refitter, "refit_cuda_engine")
