from __future__ import annotations

import os
import re
import sys
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest

from ltxrt.engines import families, ort
from ltxrt.engines.backend import Options, load_engine
from ltxrt.engines.bundle import read_bundle
from ltxrt.engines.contract import Contract
from ltxrt.engines.errors import EngineError, InputError, MissingPackageError

IDS = np.arange(6, dtype=np.int64).reshape(2, 3)


def test_external_data_is_read(bundle):
    with load_engine(bundle, "text_encoder", threads=1) as engine:
        hidden = engine(input_ids=IDS, attention_mask=np.ones_like(IDS))["hidden_states"]
    np.testing.assert_array_equal(hidden, IDS[..., None] * np.float32([1, 2, 3, 4]))


def load_unchecked(bundle):
    """ONNX Runtime alone, without the check of the graph that `load_engine` makes before."""
    return ort.load(bundle.path(bundle.graph("text_encoder").file), Options(bundle.contract("text_encoder")))


def point_weights_at(bundle, location):
    """Change where the text encoder's graph looks for its weights, behind the manifest's back."""
    path = bundle.path(bundle.graph("text_encoder").file)
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    path.write_bytes(model.SerializeToString())


@pytest.mark.parametrize("kind", ["up", "absolute", "file link", "folder link", "memory"])
def test_weights_outside_the_bundle_are_never_read(bundle, tmp_path, kind):
    inside = bundle.path(bundle.graph("text_encoder").data[0])
    outside = tmp_path / "outside.bin"
    outside.write_bytes(inside.read_bytes())
    (inside.parent / "link.bin").symlink_to(outside)
    (inside.parent / "folder").symlink_to(tmp_path)
    location = {
        "up": "../../outside.bin",
        "absolute": str(outside),
        "file link": "link.bin",
        "folder link": "folder/outside.bin",
        "memory": "*/_ORT_MEM_ADDR_/*",
    }
    point_weights_at(bundle, location[kind])
    with pytest.raises(EngineError, match="text_encoder: onnxruntime could not load the graph"):
        load_unchecked(bundle)


def test_the_same_change_inside_the_bundle_loads(bundle):
    """What makes the test above able to fail: only the place decides."""
    inside = bundle.path(bundle.graph("text_encoder").data[0])
    (inside.parent / "other.bin").write_bytes(inside.read_bytes())
    point_weights_at(bundle, "other.bin")
    load_unchecked(bundle).close()


def test_missing_external_data_is_one_sentence(bundle):
    bundle.path(bundle.graph("text_encoder").data[0]).unlink()
    with pytest.raises(
        EngineError, match=r"^text_encoder: onnxruntime could not load the graph: .*$"
    ) as caught:
        load_unchecked(bundle)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_garbage_is_refused(bundle, capfd):
    path = bundle.path(bundle.graph("text_encoder").file)
    path.write_bytes(b"\x00" * path.stat().st_size)
    with pytest.raises(EngineError, match="text_encoder: onnxruntime could not load the graph"):
        load_unchecked(read_bundle(bundle.root))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    "text, message",
    [
        (
            "g (int64[B,T] ids, int64[B,T] attention_mask) => (float[B,T,4] hidden_states)",
            r"has attention_mask tensor\(int64\), ids .* the contract says input_ids i64 \(B, T\), attention",
        ),
        ("g (int64[B,T] input_ids) => (float[B,T,4] hidden_states)", "export the component again"),
        (
            "g (int32[B,T] input_ids, int64[B,T] attention_mask) => (float[B,T,4] hidden_states)",
            r"input_ids tensor\(int32\)",
        ),
        (
            "g (int64[B,T] input_ids, int64[B,T] attention_mask) => (float[B,T,4] states)",
            r"has states tensor\(float\) where the contract says hidden_states",
        ),
    ],
)
def test_a_graph_with_another_signature_is_refused(bundle, put_graph, text, message):
    first, output = re.search(r"\] (\w+)", text)[1], re.search(r"=> \(\S+ (\w+)", text)[1]
    body = f"""
        <float[4] weight = {{1, 2, 3, 4}}, int64[1] last = {{2}}> {{
            floats = Cast <to = 1> ({first})
            column = Unsqueeze (floats, last)
            {output} = Mul (column, weight)
        }}"""
    put_graph(bundle.root, "text_encoder", text=text + body)
    with pytest.raises(EngineError, match="text_encoder: the graph .*" + message):
        load_unchecked(bundle)


def test_a_graph_that_fails_names_the_component(bundle, put_graph, capfd):
    graph = put_graph(
        bundle.root,
        "text_encoder",
        text="""g (int64[B,T] input_ids, int64[B,T] attention_mask) => (float[B,T,4] hidden_states)
        <float[4] weight = {1, 2, 3, 4}> {
            rows = Gather (weight, input_ids)
            mask = Cast <to = 1> (attention_mask)
            hidden_states = MatMul (rows, mask)
        }""",
    )
    changed = {**bundle.components, "text_encoder": {"fp32": graph}}
    with load_engine(replace(bundle, components=changed), "text_encoder") as engine:
        capfd.readouterr()
        with pytest.raises(EngineError, match=r"^text_encoder: onnxruntime could not run the graph: .*"):
            engine(input_ids=IDS + 100, attention_mask=IDS)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    "error", [MemoryError("std::bad_alloc"), RuntimeError("Failed to allocate memory for x")]
)
def test_out_of_memory_says_what_to_do(bundle, monkeypatch, error):
    engine = load_engine(bundle, "text_encoder")

    def fail(*_):
        raise error

    monkeypatch.setattr(onnxruntime.InferenceSession, "run_with_iobinding", fail)
    with pytest.raises(EngineError, match="not enough memory: use fewer frames"):
        engine(input_ids=IDS, attention_mask=IDS)


def test_without_onnxruntime_the_extra_is_named(bundle, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'ltxrt\[cpu\]'"):
        load_engine(bundle, "text_encoder")


@pytest.mark.parametrize(
    ("backend", "version", "message"),
    [
        ("onnxruntime", "1.23.2", r"1\.23\.2 is too old.*outside the bundle.*1\.24 or later.*ltxrt\[cpu\]"),
        ("onnxruntime_cuda", "1.24.4", r"1\.24\.4 is too old.*lacks kernels.*1\.25 or later.*ltxrt\[cuda\]"),
    ],
)
def test_an_old_onnxruntime_is_refused(bundle, monkeypatch, backend, version, message):
    monkeypatch.setattr(onnxruntime, "__version__", version)
    with pytest.raises(EngineError, match=message):
        load_engine(bundle, "text_encoder", backend=backend)


def test_threads_are_passed_on():
    contract = Contract("one", (), ())
    assert ort.session_options(contract, 3, 1).intra_op_num_threads == 3
    assert ort.session_options(contract, None, 1).intra_op_num_threads == 0


def test_there_is_no_arena_where_tiles_bound_the_memory(facts):
    arena = {
        name: ort.session_options(families.derive(name, facts), 1, 1).enable_cpu_mem_arena
        for name in families.component_names()
    }
    assert [name for name in arena if not arena[name]] == ["vae_encoder", "vae_decoder"]


def test_uploaded_inputs_are_not_copied_again(bundle, monkeypatch):
    session = load_engine(bundle, "text_encoder")._session
    handle = session.upload("input_ids", IDS)
    bound = {}
    bind = onnxruntime.IOBinding.bind_ortvalue_input
    monkeypatch.setattr(
        onnxruntime.IOBinding,
        "bind_ortvalue_input",
        lambda self, name, value: bound.update({name: value}) or bind(self, name, value),
    )
    session.run({"input_ids": handle, "attention_mask": IDS})
    assert bound["input_ids"] is handle
    assert isinstance(bound["attention_mask"], onnxruntime.OrtValue)


def test_cuda_without_its_package_is_refused_not_replaced(bundle):
    """The CPU's package has no CUDA provider, and would run on the CPU without a word."""
    with pytest.raises(MissingPackageError, match=r"onnxruntime-gpu.*pip install 'ltxrt\[cuda\]'"):
        load_engine(bundle, "text_encoder", backend="onnxruntime_cuda")


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_cuda_that_fell_back_to_the_cpu_is_an_error(bundle, monkeypatch):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)
    with pytest.raises(EngineError, match="fell back to the CPU"):
        load_engine(bundle, "text_encoder", backend="onnxruntime_cuda")


def test_cuda_gets_its_options_and_device_inputs(bundle, monkeypatch):
    """What the CUDA provider would be told; the session itself runs on the CPU."""
    told, devices = [], []
    real, value = onnxruntime.InferenceSession, onnxruntime.OrtValue.ortvalue_from_numpy

    def session(path, options, providers):
        told.extend(providers)
        made = real(path, options, providers=["CPUExecutionProvider"])
        monkeypatch.setattr(made, "get_providers", lambda: ["CUDAExecutionProvider"])
        return made

    def on_device(array, device="cpu", index=0):
        devices.append((device, index))
        return value(array)

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)
    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    monkeypatch.setattr(onnxruntime.OrtValue, "ortvalue_from_numpy", on_device)
    with load_engine(bundle, "text_encoder", backend="onnxruntime_cuda", device=1) as engine:
        engine(input_ids=IDS, attention_mask=IDS)
    assert told == [("CUDAExecutionProvider", {**ort.CUDA, "device_id": "1"}), "CPUExecutionProvider"]
    assert ort.CUDA["cudnn_conv_algo_search"] == "HEURISTIC", "the default tries every algorithm first"
    assert devices == [("cuda", 1), ("cuda", 1)]


@pytest.mark.parametrize(("backend", "number"), [("onnxruntime", 1), ("onnxruntime_cuda", -1)])
def test_a_gpu_that_cannot_be_meant_is_refused(bundle, backend, number):
    with pytest.raises(InputError, match=f"device {number}: must be the number of a GPU, from 0"):
        load_engine(bundle, "text_encoder", backend=backend, device=number)


@pytest.mark.parametrize(
    ("calls", "prepacked"), [(1, False), (ort.PREPACK_FROM - 1, False), (ort.PREPACK_FROM, True)]
)
def test_matrices_are_rearranged_where_calls_win_the_time_back(bundle, monkeypatch, calls, prepacked):
    """Told to the session, and the outputs are the same."""
    told = []
    real = ort.session_options
    monkeypatch.setattr(ort, "session_options", lambda *given: told.append(real(*given)) or told[-1])
    with load_engine(bundle, "text_encoder", calls=calls) as engine:
        hidden = engine(input_ids=IDS, attention_mask=np.ones_like(IDS))["hidden_states"]
    assert told[0].get_session_config_entry("session.disable_prepacking") == str(int(not prepacked))
    np.testing.assert_array_equal(hidden, IDS[..., None] * np.float32([1, 2, 3, 4]))


def test_a_package_that_does_not_load_is_not_called_missing(monkeypatch):
    class Broken:
        def find_spec(self, name, path=None, target=None):
            if name == "onnxruntime":
                raise ImportError("libcudart.so.12: cannot open shared object file")

    monkeypatch.delitem(sys.modules, "onnxruntime")
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    with pytest.raises(EngineError, match=r"onnxruntime is installed but does not load \(libcudart"):
        ort.available("onnxruntime")


def test_a_bundle_in_a_folder_of_another_encoding_is_refused_in_a_sentence(bundle, tmp_path):
    there = bundle.root.rename(tmp_path / os.fsdecode(b"caf\xe9"))
    with pytest.raises(InputError, match="onnxruntime opens no path that is not UTF-8; rename the folder"):
        load_engine(read_bundle(there), "text_encoder")
