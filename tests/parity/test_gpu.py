"""`python -m ltxrt.parity.gpu` as far as a machine without a GPU goes: its parts on the CPU."""

import json
import shutil

import numpy as np
import pytest
import tensorrt_rtx
from click.testing import CliRunner

from ltxrt.engines.errors import EngineError
from ltxrt.parity.gpu import backend, host_cuda, parts, rng
from ltxrt.parity.gpu.cli import main
from ltxrt.parity.gpu.parts import PARTS, Place, Row


def invoke(output, *arguments):
    done = CliRunner().invoke(main, ["--output", str(output), *arguments])
    results = {path.stem: json.loads(path.read_text()) for path in output.glob("*.json")}
    return done, results


@pytest.fixture
def work(parity_case, tmp_path):
    """A work folder with the models that parts would make."""
    folder = tmp_path / "work"
    for name in ("small-bundle", "step-bundle"):
        shutil.copytree(parity_case / "bundle", folder / name)
    for name in ("small", "full"):
        shutil.copytree(parity_case / "t5", folder / name / "t5")
        shutil.copy(parity_case / "model.safetensors", folder / name)
    return folder


@pytest.mark.parametrize("part", PARTS)
def test_a_part_is_tried_on_the_cpu_and_never_called_passed(part, work, tmp_path):
    done, results = invoke(tmp_path / "out", "--cpu", "--part", part, "--work", str(work))
    assert done.exit_code == 0, done.output
    (result,) = results.values()
    assert (result["part"], result["mode"], result["status"]) == (part, "cpu", parts.DRY)
    assert sum(row["passed"] is True for row in result["rows"]) >= 1
    assert f"{part}: tried on the CPU" in done.stdout and "passed" not in done.stdout


def test_without_a_gpu_every_part_says_what_it_needs(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    done, results = invoke(tmp_path)
    assert done.exit_code == 1 and "passed" not in done.stdout
    assert list(PARTS) == [line.partition(":")[0] for line in done.stdout.splitlines()]
    for name in PARTS:
        assert results[name]["status"] == parts.ABSENT and not results[name]["rows"]
        assert results[name]["problem"].startswith("needs "), results[name]


def part_of(monkeypatch, name, run):
    """Let `run(place)` be the part `name`."""
    module = type("Part", (), {"run": staticmethod(run)})
    real = parts.importlib.import_module
    monkeypatch.setattr(
        parts.importlib, "import_module", lambda n: module if n == f"ltxrt.parity.gpu.{name}" else real(n)
    )


def test_a_failing_part_does_not_stop_the_next(tmp_path, monkeypatch):
    def broken(_place):
        yield Row("first", True)
        raise EngineError("it broke")

    part_of(monkeypatch, "rng", broken)
    done, results = invoke(tmp_path, "--cpu", "--part", "rng", "--part", "device")
    assert done.exit_code == 1
    assert (results["rng"]["status"], results["rng"]["problem"]) == (parts.FAILED, "it broke")
    assert [row["name"] for row in results["rng"]["rows"]] == ["first"]
    assert results["device"]["status"] == parts.DRY


def test_rows_are_in_the_file_as_soon_as_they_are_measured(tmp_path, monkeypatch):
    def measuring(_place):
        yield Row("first", True, {"error": float("inf"), "ms": np.float64(2)})
        (row,) = json.loads((tmp_path / "rng.json").read_text())["rows"]
        assert row["figures"] == {"error": "inf", "ms": 2.0}
        assert json.loads((tmp_path / "rng.json").read_text())["status"] == parts.ABSENT
        yield Row("second", None)

    part_of(monkeypatch, "rng", measuring)
    _, results = invoke(tmp_path, "--cpu", "--part", "rng")
    assert [row["name"] for row in results["rng"]["rows"]] == ["first", "second"]


@pytest.mark.parametrize("rows", [[], [Row("a figure", None)], [Row("good", True), Row("bad", False)]])
def test_what_compares_nothing_or_fails_once_has_failed(rows, tmp_path, monkeypatch):
    part_of(monkeypatch, "rng", lambda _place: iter(rows))
    done, results = invoke(tmp_path, "--cpu", "--part", "rng")
    assert done.exit_code == 1 and results["rng"]["status"] == parts.FAILED


def test_an_absent_package_is_named_and_stops_its_part_alone(tmp_path, monkeypatch):
    def absent(_place):
        raise ModuleNotFoundError("No module named 'polygraphy'", name="polygraphy")

    part_of(monkeypatch, "backend", absent)
    done, results = invoke(tmp_path, "--cpu", "--part", "backend", "--part", "device")
    assert done.exit_code == 1
    assert results["backend"]["problem"] == "needs polygraphy, which is not installed here"
    assert results["device"]["status"] == parts.DRY


def test_other_numbers_are_noticed():
    drawn = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    assert rng.compared("same", drawn, drawn, "f32").passed
    assert not rng.compared("other", drawn, np.roll(drawn, 1), "f32").passed
    assert not rng.compared("other", drawn, np.roll(drawn, 1), "bf16").passed
    assert not rng.compared("NaN", np.full(4, np.nan, np.float32), np.ones(4, np.float32), "f32").passed


@pytest.mark.parametrize(
    ("name", "gpu"),
    [("NVIDIA H200", "H200"), ("NVIDIA H100 80GB HBM3", "H100"), ("NVIDIA H100 PCIe", "H100 PCIe"),
     ("NVIDIA A100-SXM4-80GB", "A100"), ("NVIDIA GeForce RTX 4090", "RTX 4090")],
)  # fmt: skip
def test_the_gpu_is_known_by_the_driver_s_name(name, gpu):
    assert rng.known(name) == gpu


def test_an_operator_on_the_cpu_is_noticed():
    def event(operator, provider):
        return {"cat": "Node", "args": {"op_name": operator, "provider": provider}}

    events = [
        event("MatMul", "CUDAExecutionProvider"),
        event("Pad", "CPUExecutionProvider"),
        {"cat": "Session"},
    ]
    here, elsewhere = backend.providers_of(events, "CUDAExecutionProvider")
    assert here == {"MatMul"} and elsewhere & backend.HEAVY == {"Pad"}


def test_the_stand_in_for_cuda_refuses_what_cuda_refuses():
    device = host_cuda.HostDevice(host_cuda.HostCuda())
    device.begin_graph()
    with pytest.raises(EngineError, match="cudaErrorStreamCaptureUnsupported"):
        device.wait()
    with pytest.raises(EngineError, match="cudaErrorStreamCaptureInvalidated"):
        device.end_graph()
    with pytest.raises(EngineError, match="cudaErrorMemoryAllocation"):
        device.allocate(1 << 50)


def test_tensorrt_for_rtx_has_the_names_that_its_part_calls():
    config = tensorrt_rtx.IRuntimeConfig
    for owner, names in {
        config: ("create_runtime_cache", "set_runtime_cache", "cuda_graph_strategy",
                 "dynamic_shapes_kernel_specialization_strategy"),
        tensorrt_rtx.IRuntimeCache: ("serialize", "deserialize"),
        tensorrt_rtx.Runtime: ("engine_header_size", "get_engine_validity", "deserialize_cuda_engine"),
        tensorrt_rtx.ICudaEngine: ("create_runtime_config", "create_execution_context",
                                   "get_device_memory_size_for_profile_v2"),
        tensorrt_rtx.IExecutionContext: ("is_stream_capturable", "update_device_memory_size_for_shapes",
                                         "execute_async_v3", "set_tensor_address", "set_input_shape"),
        tensorrt_rtx.CudaGraphStrategy: ("DISABLED", "WHOLE_GRAPH_CAPTURE"),
        tensorrt_rtx.DynamicShapesKernelSpecializationStrategy: ("LAZY", "EAGER", "NONE"),
    }.items():  # fmt: skip
        assert all(hasattr(owner, name) for name in names), owner


def test_a_place_names_torch_s_device_and_our_backend(tmp_path):
    assert (Place(tmp_path, True).device, Place(tmp_path, True).backend) == ("cpu", "onnxruntime")
    assert (Place(tmp_path, False).device, Place(tmp_path, False).backend) == ("cuda", "onnxruntime_cuda")
