import dataclasses
import json
import shutil
import sys

import pytest
from click.testing import CliRunner

from ltxrt.engines.bundle import read_bundle
from ltxrt.engines.machine import doctor, resources
from ltxrt.engines.machine.verdict import conclude, lines
from ltxrt.engines.tensorrt import build as trt
from ltxrt.engines.tensorrt import cache
from ltxrt.export.cli import main as export
from ltxrt.runtime.cli import main

GPU = resources.Gpu(0, "NVIDIA Test", 24 << 30, 20 << 30, "sm89", "580.65")


@pytest.fixture(scope="module")
def examined(two_pass_bundle):
    return doctor.examine(two_pass_bundle)


def changed(found, **values):
    """An examination with other values of its bundle."""
    return dataclasses.replace(found, bundle=dataclasses.replace(found.bundle, **values))


def on(found, *usable, gpus=(GPU,)):
    """An examination of a machine where these backends are usable, all of whose packages are there."""
    backends = tuple(
        dataclasses.replace(
            state,
            usable=state.name in usable,
            detail=f"GPU 0 by {state.name}",
            packages=dict.fromkeys(state.packages, "1.0"),
        )
        for state in found.backends
    )
    machine = dataclasses.replace(found.machine, gpus=gpus)
    return dataclasses.replace(found, machine=machine, backends=backends)


def test_a_machine_without_gpu_runs_a_bundle_on_its_processor(two_pass_bundle):
    result = CliRunner().invoke(main, ["doctor", "--bundle", str(two_pass_bundle)])
    assert result.exit_code == 0, result.output
    rows = [line.split(maxsplit=1) for line in result.output.splitlines()]
    labels = [row[0] for row in rows]
    assert [name for name in labels if name in ("machine", "backends", "bundle", "verdict", "next")] == [
        "machine", "backends", "bundle", "verdict", "next",
    ]  # fmt: skip
    texts = {row[0]: row[1] for row in rows if len(row) == 2}
    assert texts["GPU"] == "none that NVIDIA's driver shows"
    assert "GiB available" in texts["memory"] and "free in" in texts["disk"]
    assert texts["onnxruntime"].startswith("(cpu)        usable: CPU ")
    assert "not usable: it runs on NVIDIA GPUs, and none is visible here" in texts["tensorrt"]
    assert f"tensorrt-rtx {trt.version('tensorrt_rtx')}" in texts["tensorrt_rtx"]
    assert texts["latent_upsampler"] == "fp32"
    assert texts["parity"].startswith(
        "nothing verified against torch on onnxruntime; where torch is: ltx-parity"
    )
    assert texts["This"].startswith("machine runs the bundle with onnxruntime (CPU ")
    assert texts["Its"].startswith("default video, 121 frames of 704×480, takes about 2.")
    assert texts["ltx-run"].startswith(f"--bundle {two_pass_bundle} --prompt ")


def test_the_same_is_data(two_pass_bundle):
    result = CliRunner().invoke(main, ["doctor", "--json", "--bundle", str(two_pass_bundle)])
    found = json.loads(result.stdout)
    assert found["event"] == "result" and found["verdict"]["ok"] is True
    assert found["bundle"]["components"]["transformer"] == ["fp32"]
    assert found["default_video"]["largest"] == "transformer" and found["default_video"]["peak"] > 2 << 30
    assert found["machine"]["memory"]["total"] > found["machine"]["memory"]["available"] > 0
    assert [state["name"] for state in found["backends"] if state["usable"]] == ["onnxruntime"]


def test_without_a_bundle_the_next_command_makes_one():
    result = CliRunner().invoke(main, ["doctor"])
    assert result.exit_code == 0 and result.output.splitlines()[-1].startswith("  ltx-export onnx CHECKPOINT")


@pytest.mark.parametrize(
    ("gpus", "extra"), [((), "pip install 'ltxrt[cpu]'"), ((GPU,), "pip install 'ltxrt[tensorrt]'")]
)
def test_where_nothing_runs_the_next_command_installs_what_fits(examined, gpus, extra):
    end = conclude(on(examined, gpus=gpus))
    assert (end.ok, end.text, end.next) == (False, "No backend can run here.", extra)


def test_an_exit_status_of_1_says_that_no_video_can_be_made(two_pass_bundle, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    result = CliRunner().invoke(main, ["doctor", "--bundle", str(two_pass_bundle)])
    assert result.exit_code == 1, result.output
    assert result.output.splitlines()[-1] == "  pip install 'ltxrt[cpu]'"


def test_a_bundle_without_a_component_of_all_videos_is_completed_next(two_pass_bundle, tmp_path):
    folder = shutil.copytree(two_pass_bundle, tmp_path / "b")
    manifest = json.loads((folder / "bundle.json").read_text())
    for name in ("text_encoder", "vae_encoder"):
        del manifest["components"][name]
    (folder / "bundle.json").write_text(json.dumps(manifest))
    found = doctor.examine(folder)
    end = conclude(found)
    assert (end.ok, end.text) == (False, "The bundle has no text_encoder, which reads the prompt.")
    assert end.next.startswith("ltx-export onnx CHECKPOINT --text-encoder DIR --component text_encoder")
    assert list(found.bundle.missing) == ["text_encoder", "vae_encoder"]
    assert any(line.split()[:2] == ["vae_encoder", "missing"] for line in lines(found))


def test_what_the_backend_does_not_run_is_exported_again(examined):
    refused = changed(examined, refused={"transformer": "it is bf16"}, needed=("transformer",))
    end = conclude(refused)
    assert not end.ok and "cannot run transformer: it is bf16" in end.text
    assert end.next.startswith("ltx-export onnx CHECKPOINT --component transformer --precision fp32 --output")


@pytest.mark.parametrize(
    ("usable", "start"),
    [
        (("onnxruntime", "tensorrt"), "ltx-export build-engines --bundle "),
        (("onnxruntime",), "ltx-run --bundle "),
    ],
)
def test_a_gpu_that_is_not_used_is_what_the_next_command_is_about(examined, usable, start):
    passed = changed(on(examined, *usable), passed_over={"tensorrt": "there is no engine of transformer"})
    end = conclude(passed)
    assert end.ok and "A faster backend, tensorrt, does not: there is no engine of transformer." in end.text
    assert end.next.startswith(start)


def test_a_missing_package_of_a_faster_backend_is_installed_next(examined):
    passed = changed(examined, passed_over={"tensorrt": "tensorrt is not installed"})
    passed = dataclasses.replace(passed, machine=dataclasses.replace(passed.machine, gpus=(GPU,)))
    assert conclude(passed).next == "pip install 'ltxrt[tensorrt]'"
    assert any("NVIDIA Test (sm89), 24 GiB, 20 GiB free, driver 580.65" in line for line in lines(passed))


def test_a_limit_of_the_container_is_said(examined):
    memory = resources.Memory(64 << 30, 3 << 30, 4 << 30)
    limited = dataclasses.replace(examined, machine=dataclasses.replace(examined.machine, memory=memory))
    assert any("64 GiB, 3 GiB available; this container may use 4 GiB" in line for line in lines(limited))


def test_engines_are_looked_at(two_pass_bundle, tmp_path):
    folder = shutil.copytree(two_pass_bundle, tmp_path / "b")
    stale = folder / "engines" / "tensorrt_rtx" / "sm89" / "x.engine"
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"half")
    (line,) = doctor.examine(folder).bundle.engines
    assert line.startswith("engines/tensorrt_rtx/sm89/x.engine: has no readable record")


@pytest.mark.parametrize("arguments", [["--quiet"], ["--prompt", "fog"]])
def test_a_bundle_is_still_needed_for_a_video(arguments):
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2 and "Missing option '--bundle'" in result.output


@pytest.fixture
def with_engine(two_pass_bundle, tmp_path):
    """A bundle with an engine whose record fits it; nothing reads the engine itself."""
    folder = shutil.copytree(two_pass_bundle, tmp_path / "b")
    graph = read_bundle(folder).graph("latent_upsampler")
    record = cache.Record(
        cache.SCHEMA, "latent_upsampler", "fp32", "tensorrt_rtx", trt.version("tensorrt_rtx"), "sm89",
        graph.file.sha256, tuple(file.sha256 for file in graph.data), (), {}, bytes=4,
    )  # fmt: skip
    path = folder / "engines" / "tensorrt_rtx" / "sm89" / record.name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"data")
    path.with_suffix(".json").write_text(json.dumps(dataclasses.asdict(record)))
    return folder


def test_an_engine_fits_only_a_version_that_is_installed(with_engine, monkeypatch):
    version = trt.version("tensorrt_rtx")
    (line,) = doctor.examine(with_engine).bundle.engines
    assert line.endswith(f"fits the bundle and the installed tensorrt_rtx {version}")
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    (line,) = doctor.examine(with_engine).bundle.engines
    assert line.endswith(
        f"fits the bundle; it takes tensorrt_rtx {version}, and no tensorrt_rtx is installed: "
        "pip install 'ltxrt[tensorrt-rtx]'"
    )


def test_engines_of_a_component_that_has_none_are_asked_for_aloud(with_engine):
    arguments = ["engines", "inspect", "--bundle", str(with_engine), "--component"]
    result = CliRunner().invoke(export, [*arguments, "transformer"])
    assert result.exit_code == 0, result.output
    assert result.output.startswith("no engines of transformer; build them with: ltx-export build-engines")
    assert "no engines" not in CliRunner().invoke(export, [*arguments, "latent_upsampler"]).output


def test_the_bundle_may_stand_before_the_subcommand(two_pass_bundle):
    runs = [["--bundle", two_pass_bundle, "doctor"], ["doctor", "--bundle", two_pass_bundle]]
    first, second = (CliRunner().invoke(main, list(map(str, arguments))) for arguments in runs)
    assert first.exit_code == 0 and "bundle " in first.output
    same, other = (  # but for the memory and disk at hand, which may change
        [line for line in done.output.splitlines() if " available" not in line and " free in" not in line]
        for done in (first, second)
    )
    assert same == other


def test_options_of_a_video_are_none_of_doctor_s(two_pass_bundle):
    result = CliRunner().invoke(main, ["--prompt", "fog", "doctor"])
    assert result.exit_code == 2 and "--prompt: doctor has no use for it" in result.output
