from __future__ import annotations

import re
import subprocess
import sys
import threading
import types
from dataclasses import replace
from typing import ClassVar

import numpy as np
import onnx
import pytest

from ltxrt.engines import backend, ort
from ltxrt.engines.backend import BACKENDS, Engine, Options, load_engine
from ltxrt.engines.contract import Contract, Tensor
from ltxrt.engines.errors import BundleError, EngineError, InputError, InterruptedRunError
from ltxrt.engines.machine import examine

STATIC = ("context", "context_mask", "rope_cos", "rope_sin", "perturbation_mask")


def test_the_backends_that_need_a_gpu_are_tested_without_one():
    """`test_trt_session.py` and `test_ort.py` hold them against stand-ins; the first runs here."""
    assert set(BACKENDS) == {"onnxruntime", "onnxruntime_cuda", "tensorrt", "tensorrt_rtx"}


@pytest.fixture(params=["onnxruntime"])
def engine(bundle, request):
    with load_engine(bundle, "transformer", backend=request.param, threads=1) as loaded:
        yield loaded


def split(feed):
    static = {name: feed[name] for name in STATIC}
    return static, {name: array for name, array in feed.items() if name not in STATIC}


def expected(feed):
    time = np.take_along_axis(feed["timesteps"], feed["timestep_index"], 1)[..., None]
    rows = feed["latents"] * np.float32([1, 2, 3]) + time
    return rows * feed["rope_cos"].mean(2, keepdims=True) + feed["context"].mean((1, 2), keepdims=True)


def test_a_call_computes_the_graph(engine, feed):
    np.testing.assert_allclose(engine(**feed)["velocity"], expected(feed), rtol=1e-5, atol=1e-5)


def test_bound_and_called_equals_called(engine, feed):
    static, rest = split(feed)
    plain = engine(**feed)["velocity"]
    step = engine.bind(**static)
    np.testing.assert_array_equal(step(**rest)["velocity"], plain)
    np.testing.assert_array_equal(step(**rest)["velocity"], plain)
    first, second = dict(list(static.items())[:2]), dict(list(static.items())[2:])
    np.testing.assert_array_equal(engine.bind(**first).bind(**second)(**rest)["velocity"], plain)
    np.testing.assert_array_equal(engine.bind(**feed)()["velocity"], plain)


def test_bound_inputs_are_copies(engine, feed):
    static, rest = split(feed)
    plain = engine(**feed)["velocity"]
    step = engine.bind(**static)
    for array in static.values():
        array[...] = 0
    np.testing.assert_array_equal(step(**rest)["velocity"], plain)


def test_sizes_may_change_between_calls_but_not_against_what_is_bound(engine, feed):
    static, rest = split(feed)
    longer = engine.contract.sample({"B": 1, "N": 9, "K": 1, "T": 2}, np.random.default_rng(1))
    assert engine(**feed)["velocity"].shape == (2, 6, 3)
    assert engine(**longer)["velocity"].shape == (1, 9, 3)
    step = engine.bind(**static)
    wrong = {**rest, "latents": rest["latents"][:, :5]}
    with pytest.raises(InputError, match=r"with B=2, T=5, N=6; got latents float32 \(2, 5, 3\)"):
        step(**wrong)
    distinct = {**rest, "timesteps": np.zeros((2, 7), np.float32)}
    assert step(**distinct)["velocity"].shape == (2, 6, 3)


def test_bound_inputs_must_agree(engine, feed):
    with pytest.raises(InputError, match=r"wants rope_sin f32 \(1, N, 2\) with N=6; got rope_sin"):
        engine.bind(rope_cos=feed["rope_cos"], rope_sin=feed["rope_sin"][:, :3])
    with pytest.raises(InputError, match="transformer has no input 'rope'; it takes latents"):
        engine.bind(rope=feed["rope_cos"])
    step = engine.bind(rope_cos=feed["rope_cos"])
    with pytest.raises(InputError, match="has no input 'rope_cos'; it takes latents, timesteps"):
        step.bind(rope_cos=feed["rope_cos"])
    with pytest.raises(
        InputError, match=r"transformer takes latents, .*perturbation_mask; got rope_cos, latents"
    ):
        step(**{"rope_cos": feed["rope_cos"], **feed})


def test_nothing_is_converted(engine, feed):
    with pytest.raises(InputError, match="got latents float64"):
        engine(**{**feed, "latents": feed["latents"].astype(np.float64)})
    with pytest.raises(InputError, match=r"wants context_mask bool .* got context_mask int64"):
        engine(**{**feed, "context_mask": feed["context_mask"].astype(np.int64)})
    with pytest.raises(InputError, match="got latents list"):
        engine(**{**feed, "latents": feed["latents"].tolist()})
    with pytest.raises(InputError, match="transformer takes latents, timesteps"):
        engine(latents=feed["latents"])


def test_strides_and_read_only_arrays_do_not_matter(engine, feed):
    plain = engine(**feed)["velocity"]
    strided = {name: np.asfortranarray(array) for name, array in feed.items()}
    strided["rope_cos"] = np.repeat(feed["rope_cos"], 2, axis=1)[:, ::2]
    for array in strided.values():
        array.flags.writeable = False
    np.testing.assert_array_equal(engine(**strided)["velocity"], plain)
    static, rest = split(strided)
    np.testing.assert_array_equal(engine.bind(**static)(**rest)["velocity"], plain)


def test_an_output_outlives_its_engine(bundle, feed):
    with load_engine(bundle, "transformer") as engine:
        output = engine(**feed)["velocity"]
    np.testing.assert_allclose(output, expected(feed), rtol=1e-5, atol=1e-5)


def test_a_closed_engine_says_so(engine, feed):
    step = engine.bind(**feed)
    engine.close()
    with pytest.raises(EngineError, match="transformer: the engine is closed"):
        engine(**feed)
    with pytest.raises(EngineError, match="transformer: the engine is closed"):
        step()
    engine.close()


class Returns:
    """A session that returns the same arrays whatever it is given."""

    def __init__(self, **outputs):
        self.outputs = outputs

    def upload(self, name, array):
        return array

    def run(self, feeds):
        return self.outputs

    def close(self):
        pass


@pytest.mark.parametrize(
    "output", [np.zeros((2, 6, 4), np.float32), np.zeros((2, 5, 3), np.float32), np.zeros((2, 6, 3))]
)
def test_an_output_that_breaks_the_contract_is_refused(bundle, feed, output):
    engine = Engine(bundle.contract("transformer"), Returns(velocity=output))
    with pytest.raises(EngineError, match=r"the contract says velocity f32 \(B, N, 3\), here \(2, 6, 3\)"):
        engine(**feed)


TWO = Contract(
    "two",
    (Tensor("x", "f32", ("B", "N", 3)), Tensor("sound", "f32", ("B", "A"))),
    (Tensor("louder", "f32", ("B", "A")), Tensor("longer", "f32", ("B", "N", 6))),
)
TWO_GRAPH = """<ir_version: 10, opset_import: ["": 23]>
    two (float[B,N,3] x, float[B,A] sound) => (float[B,N,6] longer, float[B,A] louder) {
        longer = Concat <axis = 2> (x, x)
        louder = Add (sound, sound)
    }"""
TWO_FEED = {"x": np.ones((2, 4, 3), np.float32), "sound": np.full((2, 7), 3, np.float32)}


def test_a_graph_of_two_outputs_gives_both_by_name(tmp_path):
    """Whatever the graph's own order, and of axes that the other input does not have."""
    onnx.save(onnx.parser.parse_model(TWO_GRAPH), tmp_path / "two.onnx")
    with Engine(TWO, ort.load(tmp_path / "two.onnx", Options(TWO))) as engine:
        for outputs in (engine(**TWO_FEED), engine.bind(sound=TWO_FEED["sound"])(x=TWO_FEED["x"])):
            assert list(outputs) == ["louder", "longer"]
            np.testing.assert_array_equal(outputs["louder"], np.full((2, 7), 6))
            np.testing.assert_array_equal(outputs["longer"], np.ones((2, 4, 6)))


ENDLESS = """<ir_version: 10, opset_import: ["": 23]>
    endless (float[B,N,3] x, float[B,A] sound) => (float[B,N,6] longer, float[B,A] louder) {
        longer = Concat <axis = 2> (x, x)
        times = Constant <value = int64 {9000000000000000000}> ()
        yes = Constant <value = bool {1}> ()
        louder = Loop <body = again (int64 i, bool go, float[B,A] a) => (bool going, float[B,A] same) {
            going = Identity (go)
            same = Identity (a)
        }> (times, yes, sound)
    }"""


def test_a_call_is_interrupted_from_another_thread_and_so_are_later_ones(tmp_path, capfd):
    """The call would never end by itself; whether it has begun when it is interrupted does not matter."""
    onnx.save(onnx.parser.parse_model(ENDLESS), tmp_path / "endless.onnx")
    with Engine(TWO, ort.load(tmp_path / "endless.onnx", Options(TWO))) as engine:
        thread = threading.Thread(target=engine.interrupt)
        thread.start()
        with pytest.raises(InterruptedRunError, match="two: the call was interrupted"):
            engine(**TWO_FEED)
        thread.join()
        with pytest.raises(InterruptedRunError):
            engine.bind(sound=TWO_FEED["sound"])(x=TWO_FEED["x"])
    assert capfd.readouterr().err == ""


def test_an_engine_that_was_interrupted_runs_again_after_resume(engine, feed):
    before = engine(**feed)["velocity"]
    engine.interrupt()
    with pytest.raises(InterruptedRunError):
        engine(**feed)
    engine.resume()
    np.testing.assert_array_equal(engine(**feed)["velocity"], before)


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        (
            {"louder": (2, 7)},
            r"two: the engine returned louder where the contract says louder f32 \(B, A\), ",
        ),
        ({"louder": (2, 7), "longer": (2, 4, 6), "more": (1,)}, "the engine returned louder, longer, more"),
        ({"louder": (2, 7), "longer": (2, 4, 3)}, r"says longer f32 \(B, N, 6\), here \(2, 4, 6\)"),
        ({"louder": (2, 4), "longer": (2, 4, 6)}, r"says louder f32 \(B, A\), here \(2, 7\)"),
        ({}, "the engine returned nothing"),
    ],
)
def test_every_output_is_checked(outputs, message):
    returned = {name: np.zeros(shape, np.float32) for name, shape in outputs.items()}
    with pytest.raises(EngineError, match=message):
        Engine(TWO, Returns(**returned))(**TWO_FEED)


class Toy(types.ModuleType):
    """A backend as somebody adds it: a module of its own, which computes the transformer in NumPy."""

    PRECISIONS: ClassVar = {"toy": ("fp32",)}
    PACKAGES: ClassVar = {"toy": (backend.Package("toy-runtime", "runs toys", "toy"),)}

    def __init__(self):
        super().__init__("toy_backend")
        self.here = True

    def available(self, name, device=0):
        if not self.here:
            raise EngineError("no toy processor is plugged in")
        return f"toy processor {device}"

    def load(self, path, options):
        assert path.suffix == ".onnx" and options.backend == "toy"
        session = Returns()
        session.run = lambda feeds: {"velocity": expected(feeds).astype(np.float32)}
        return session


@pytest.fixture
def toy(monkeypatch):
    module = Toy()
    monkeypatch.setitem(sys.modules, "toy_backend", module)
    monkeypatch.setitem(BACKENDS, "toy", "toy_backend")
    return module


def test_a_backend_is_a_module_and_a_row(bundle, feed, toy):
    with load_engine(bundle, "transformer", backend="toy") as engine:
        np.testing.assert_allclose(engine(**feed)["velocity"], expected(feed), rtol=1e-5, atol=1e-5)
    assert backend.choose(bundle, "transformer", "toy") == "fp32"
    assert backend.available("toy", 3) == "toy processor 3"
    assert backend.why_not(bundle, "transformer", "toy", "fp32") is None
    toy.here = False
    assert backend.why_not(bundle, "transformer", "toy", "fp32") == "no toy processor is plugged in"
    half = replace(bundle, components={"transformer": {"fp16": bundle.graph("transformer")}})
    assert backend.why_not(half, "transformer", "toy", "fp16") == "toy does not run fp16"
    with pytest.raises(InputError, match=r"toy does not run fp16; take .* or backend onnxruntime or"):
        load_engine(half, "transformer", backend="toy")


def test_doctor_asks_every_backend(bundle, toy):
    found = {state.name: state for state in examine(bundle.root).backends}
    assert found["toy"].install == "pip install 'ltxrt[toy]'"
    assert (found["toy"].usable, found["toy"].detail) == (True, "toy processor 0")
    assert found["toy"].packages == {"toy-runtime": None}
    toy.here = False
    toy.describe = lambda bundle: iter([f"toys/{name}.toy: fits" for name in bundle.components])
    later = examine(bundle.root)
    states = {state.name: (state.usable, state.detail) for state in later.backends}
    assert states["toy"] == (False, "no toy processor is plugged in")
    assert list(later.bundle.engines) == ["toys/text_encoder.toy: fits", "toys/transformer.toy: fits"]


def test_a_backend_of_engines_built_before_loads_what_it_finds(bundle, feed, toy, monkeypatch):
    """It reads no graph, whose damage is then not its own."""
    engine = bundle.root / "toys" / "transformer.onnx"
    located, loaded = [], []
    toy.locate = lambda *asked: located.append(asked[1:]) or (engine, engine.with_name("other"))
    toy.needs_graph = lambda path: False
    toy.load = lambda path, options: loaded.append((path, options.others)) or Returns()
    monkeypatch.setattr(backend, "check_graph", lambda *_: None)
    bundle.path(bundle.graph("transformer").data[0]).write_bytes(b"x" * 12)
    load_engine(bundle, "transformer", backend="toy", device=2)
    assert set(located) == {("toy", "transformer", "fp32", 2)}
    assert loaded == [(engine, (engine.with_name("other"),))]
    toy.needs_graph = lambda path: True
    with pytest.raises(BundleError, match="SHA-256"):
        load_engine(bundle, "transformer", backend="toy")


def test_what_cannot_be_loaded(bundle):
    with pytest.raises(InputError, match=r"backend 'cudnn': no backend has this name .*they are onnxruntime"):
        load_engine(bundle, "transformer", backend="cudnn")
    with pytest.raises(InputError, match="the bundle has no vae_decoder, which makes pixels of latents"):
        load_engine(bundle, "vae_decoder")
    with pytest.raises(InputError, match="has transformer in fp32, not in bf16"):
        load_engine(bundle, "transformer", precision="bf16")
    with pytest.raises(InputError, match="threads 0: must be a whole number between 1 and 1024"):
        load_engine(bundle, "transformer", threads=0)


def test_the_backend_chooses_among_precisions(bundle, put_graph, feed):
    broken = "transformer (float[1] latents) => (float[1] velocity) { velocity = Identity (latents) }"
    graphs = {
        "fp16": put_graph(
            bundle.root, "transformer", "fp16", broken.replace("{", "<float[1] weight = {1}> {")
        ),
        "fp32": bundle.graph("transformer"),
    }
    both = replace(bundle, components={"transformer": graphs})
    assert load_engine(both, "transformer")(**feed)["velocity"].shape == (2, 6, 3)
    with pytest.raises(BundleError, match="where the contract says"):
        load_engine(both, "transformer", precision="fp16")


@pytest.mark.parametrize(
    ("there", "wanted", "message"),
    [
        (("fp32", "fp8"), "fp8", "onnxruntime does not run fp8; take precision transformer=fp32, or "
         "backend tensorrt_rtx or tensorrt"),
        (("bf16", "fp8"), None, "transformer in bf16: onnxruntime does not run bf16; take another precision, "
         "which ltx-export onnx CHECKPOINT --component transformer --precision fp32 --output "),
        (("bf16",), None, "or backend onnxruntime_cuda or tensorrt_rtx or tensorrt"),
    ],
)  # fmt: skip
def test_a_precision_that_the_backend_does_not_run_is_refused_with_what_it_runs(
    bundle, there, wanted, message
):
    """Before the file is looked at: ONNX Runtime would name a node."""
    graph = bundle.graph("transformer")
    offered = replace(bundle, components={"transformer": dict.fromkeys(there, graph)})
    for refused in (backend.files, backend.choose):
        arguments = (offered, "transformer", "onnxruntime", wanted)
        with pytest.raises(InputError, match=re.escape(message)):
            refused(*arguments)
    with pytest.raises(InputError, match=re.escape(message)):
        load_engine(offered, "transformer", precision=wanted)


def test_importing_loads_no_heavy_package():
    heavy = ("torch", "onnx", "onnxruntime", "transformers")
    check = f"import sys, ltxrt.engines.backend; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"
