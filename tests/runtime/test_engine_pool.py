"""The pool loads, keeps and frees; which numbers come out is the pipeline's matter."""

import dataclasses
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from ltxrt.engines.bundle import read_bundle
from ltxrt.engines.errors import EngineError, InputError, InterruptedRunError, MissingPackageError
from ltxrt.runtime import engine_pool
from ltxrt.runtime.engine_pool import KEPT_ENGINE_CALLS, EnginePool
from ltxrt.runtime.ltxv.pipeline import Pipeline
from ltxrt.runtime.request.request import Request

COMPONENT = "vae_decoder"


class Loaded:
    """An engine that says whether it was closed."""

    def __init__(self, name, calls):
        self.name, self.calls, self.closed, self.interrupted = name, calls, False, False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.closed = True

    def interrupt(self):
        self.interrupted = True

    def resume(self):
        self.interrupted = False


@pytest.fixture
def loads(monkeypatch):
    """Every engine that was loaded, in order."""
    found = []

    def load(bundle, component, *, calls, **_):
        found.append(Loaded(component, calls))
        return found[-1]

    monkeypatch.setattr(engine_pool, "load_engine", load)
    return found


@pytest.fixture
def bundle(tiny_bundle):
    return read_bundle(tiny_bundle("0.9.5"))


def test_an_engine_that_is_not_kept_is_freed_after_its_block_also_after_an_error(bundle, loads):
    pool = EnginePool(bundle)
    with pool.engine(COMPONENT, calls=7) as engine:
        assert (engine.calls, engine.closed) == (7, False)
    with pytest.raises(ZeroDivisionError), pool.engine(COMPONENT):
        raise ZeroDivisionError
    assert [engine.closed for engine in loads] == [True, True]


def test_a_kept_engine_is_loaded_once_for_many_calls_and_freed_by_close(bundle, loads):
    with EnginePool(bundle, keep_loaded=True) as pool:
        for _ in range(3):
            with pool.engine(COMPONENT, calls=2) as engine:
                assert engine.calls == KEPT_ENGINE_CALLS
        assert [engine.closed for engine in loads] == [False]
        pool.close()
        assert [engine.closed for engine in loads] == [True]
        with pool.engine(COMPONENT):
            assert len(loads) == 2
    assert all(engine.closed for engine in loads)


def test_threads_that_want_one_component_at_once_load_it_once_and_others_do_not_wait(bundle, monkeypatch):
    begun, go, names = threading.Event(), threading.Event(), []

    def load(_bundle, component, **_):
        names.append(component)
        if component == COMPONENT:
            begun.set()
            assert go.wait(60)
        return Loaded(component, 1)

    def take(component):
        with pool.engine(component) as engine:
            return engine

    monkeypatch.setattr(engine_pool, "load_engine", load)
    with EnginePool(bundle, keep_loaded=True) as pool, ThreadPoolExecutor(4) as threads:
        waiting = [threads.submit(take, COMPONENT) for _ in range(3)]
        assert begun.wait(60)
        assert take("transformer").name == "transformer"  # while the decoder is still being loaded
        go.set()
        assert len({id(one.result()) for one in waiting}) == 1
    assert sorted(names) == ["transformer", COMPONENT]


def test_after_a_failed_load_the_next_thread_tries_again(bundle, monkeypatch):
    results = [EngineError("no memory"), Loaded(COMPONENT, 1)]

    def load(*_, **__):
        result = results.pop(0)
        if isinstance(result, Exception):
            raise result
        return result

    monkeypatch.setattr(engine_pool, "load_engine", load)
    pool = EnginePool(bundle, keep_loaded=True)
    with pytest.raises(EngineError, match="no memory"), pool.engine(COMPONENT):
        pass
    with pool.engine(COMPONENT) as engine:
        assert engine.name == COMPONENT


def test_files_of_a_kept_engine_are_neither_checked_nor_read_again(bundle, loads, monkeypatch):
    checked, read = [], []
    monkeypatch.setattr(engine_pool, "check_files", lambda bundle, name, *_: checked.append(name))
    monkeypatch.setattr(engine_pool.EnginePool, "files", lambda self, name: read.append(name) or [])
    pool = EnginePool(bundle, keep_loaded=True)
    for _ in range(2):
        pool.check_intact(COMPONENT)
        with pool.read_ahead(COMPONENT), pool.engine(COMPONENT):
            pass
    assert (checked, read) == ([COMPONENT], [COMPONENT])


def test_a_pipeline_takes_a_pool_and_leaves_it_to_its_owner(bundle, loads):
    with EnginePool(bundle, keep_loaded=True) as pool:
        with pool.engine(COMPONENT), Pipeline(bundle, engines=pool) as pipeline:
            assert pipeline.engines is pool
        assert not loads[0].closed
    assert loads[0].closed


def test_a_pool_of_another_bundle_or_beside_its_own_options_is_refused(bundle, tiny_bundle):
    with pytest.raises(InputError, match="make both of one bundle"):
        Pipeline(bundle, engines=EnginePool(tiny_bundle("0.9.0")))
    with pytest.raises(InputError, match="threads: belong to the engines"):
        Pipeline(bundle, engines=EnginePool(bundle), threads=2)


@pytest.mark.parametrize(
    ("backend", "there", "taken"),
    [
        ("onnxruntime", ("bf16", "fp16", "fp32"), "fp32"),
        ("onnxruntime", ("bf16", "fp8-fp16"), "fp8-fp16"),
        ("tensorrt_rtx", ("fp32", "bf16"), "bf16"),
        ("tensorrt", ("bf16", "fp8"), "fp8"),
        ("tensorrt", ("fp32",), "fp32"),
    ],
)
def test_of_several_precisions_the_backend_s_first_is_taken(bundle, backend, there, taken):
    graph = bundle.graph("transformer")
    components = {**bundle.components, "transformer": dict.fromkeys(there, graph)}
    several = dataclasses.replace(bundle, components=components)
    assert EnginePool(several, backend=backend).precision("transformer") == taken


def test_an_interruption_ends_what_is_in_use_and_a_kept_engine_serves_again_afterwards(bundle, loads):
    with EnginePool(bundle, keep_loaded=True) as pool:
        with pool.engine("transformer"):
            pass
        with pool.engine(COMPONENT) as engine:
            with pool.engine(COMPONENT):
                pool.interrupt()
            assert engine.interrupted  # another block still uses it
        assert not engine.interrupted
        with pool.engine(COMPONENT) as again:
            assert again is engine and not again.interrupted
    assert not loads[0].interrupted  # kept, but no one's


def test_a_run_is_interrupted_from_another_thread_and_the_next_one_is_whole(tiny_bundle):
    """Between two steps here, so that no clock decides; the call that follows ends at once."""
    bundle, events = tiny_bundle("0.9.5"), []
    request = Request("fog", height=64, width=96, num_frames=9, steps=3)

    def watch(event):
        events.append(event)
        if event.step is not None and event.step.index == 0:
            other = threading.Thread(target=pool.interrupt)
            other.start()
            other.join()

    with EnginePool(bundle, keep_loaded=True) as pool:
        pipeline = Pipeline(bundle, engines=pool)
        with pytest.raises(InterruptedRunError):
            pipeline.generate(request, watch)
        assert [event.step.index for event in events if event.step] == [0]
        assert len(pipeline.generate(request).frames) == 9


@pytest.mark.parametrize("keep", [False, True])
def test_an_interruption_while_an_engine_is_loaded_comes_when_it_is(bundle, loads, monkeypatch, keep):
    pool, load = EnginePool(bundle, keep_loaded=keep), engine_pool.load_engine

    def interrupted(*arguments, **options):
        pool.interrupt()
        return load(*arguments, **options)

    monkeypatch.setattr(engine_pool, "load_engine", interrupted)
    with pytest.raises(InterruptedRunError, match=COMPONENT), pool.engine(COMPONENT):
        raise AssertionError("was not interrupted")
    assert loads[0].closed is not keep
    monkeypatch.setattr(engine_pool, "load_engine", load)
    with pool.engine(COMPONENT) as engine:
        assert not engine.interrupted
    pool.close()


@pytest.mark.parametrize("stage", ["text encoder", "transformer", "image decoder"])
def test_a_pipeline_is_interrupted_between_two_engines(tiny_bundle, stage):
    request, begun = Request("fog", height=64, width=96, num_frames=9, steps=1), []

    def watch(event):
        begun.append(event.stage)
        if event.stage == stage:
            pipeline.interrupt()

    with Pipeline(tiny_bundle("0.9.5"), backend="onnxruntime") as pipeline:
        with pytest.raises(InterruptedRunError, match=stage):
            pipeline.generate(request, watch)
        assert begun[-1] == stage
        pipeline.interrupt()  # of no run: it does not end the next one
        assert len(pipeline.generate(request).frames) == 9


def test_named_components_are_kept_and_loaded_as_for_a_single_run(bundle, loads):
    with EnginePool(bundle, keep_loaded={COMPONENT}) as pool:
        for calls in (2, 3, 40, 2, 50):
            with pool.engine(COMPONENT, calls=calls) as engine:
                assert (engine.calls >= 25) == (calls >= 25)
        with pool.engine("transformer"):
            pass
        assert [(one.name, one.calls, one.closed) for one in loads] == [
            (COMPONENT, 2, False),
            (COMPONENT, 40, False),  # the CPU's engines round otherwise from 25 calls on
            ("transformer", 1, True),
        ]
    assert all(engine.closed for engine in loads)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "onnxruntme"}, "backend 'onnxruntme': .*the nearest is onnxruntime"),
        ({"backend": None}, "backend is of type NoneType; give auto, or one of onnxruntime"),
        ({"threads": 0}, "threads 0: must be a whole number between 1 and 1024"),
        ({"threads": 1.5}, "threads 1.5: must be a whole number"),
        ({"device": -1}, "device -1: must be the number of a GPU, from 0"),
        ({"device": 1, "backend": "cpu"}, "device 1: onnxruntime runs on the CPU; leave it out, or give"),
        ({"precision": "fp15"}, "precision 'fp15': must be one of fp32"),
        ({"precision": {"transfomer": "fp32"}}, "precision 'transfomer': is no component; they are"),
        ({"precision": "fp16"}, "text_encoder in fp32, not in fp16"),
        ({"precision": "bf16", "backend": "cpu"}, "text_encoder in bf16: onnxruntime does not run bf16"),
        ({"precision": {"transformer": "fp15"}}, "precision 'fp15': must be one of fp32"),
    ],
)  # fmt: skip
def test_a_wrong_option_is_refused_by_the_constructor(tiny_bundle, options, message):
    with pytest.raises(InputError, match=message):
        Pipeline(tiny_bundle("0.9.5"), **options)


def test_one_precision_may_be_given_for_all_components(tiny_bundle):
    pool = EnginePool(tiny_bundle("0.9.5"), precision="fp32")
    assert pool.precision("transformer") == pool.precision("vae_decoder") == "fp32"


def test_a_backend_that_cannot_run_here_is_refused_by_the_pipeline_s_constructor(tiny_bundle, monkeypatch):
    from ltxrt.engines import ort

    def missing(backend, device=0):
        raise MissingPackageError("onnxruntime", "cpu")

    monkeypatch.setattr(ort, "available", missing)
    with pytest.raises(MissingPackageError, match=r"pip install 'ltxrt\[cpu\]'"):
        Pipeline(tiny_bundle("0.9.5"), backend="cpu")
