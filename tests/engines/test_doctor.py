import dataclasses
import json
import shutil
import sys

import pytest
from click.testing import CliRunner

from ltxrt.engines import doctor
from ltxrt.engines.bundle import read_bundle
from ltxrt.engines.tensorrt import build as trt
from ltxrt.engines.tensorrt import cache
from ltxrt.export.cli import main as export
from ltxrt.runtime.cli import main


def test_what_is_there_and_what_is_missing_is_said(two_pass_bundle, tmp_path):
    result = CliRunner().invoke(main, ["doctor", "--bundle", str(two_pass_bundle)])
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert any(line.startswith("onnxruntime 1.") for line in lines)
    assert f"tensorrt-rtx {trt.version('tensorrt_rtx')}" in lines
    assert "tensorrt missing (runs engines on NVIDIA GPUs): pip install 'ltxrt[tensorrt]'" in lines
    assert any(line.startswith("tensorrt_rtx: ") and ("GPU" in line or "CUDA" in line) for line in lines)
    assert any("latent_upsampler (fp32)" in line for line in lines)
    assert lines[-1].startswith("no engines: ltx-export build-engines")


def test_engines_are_looked_at(two_pass_bundle, tmp_path):
    folder = shutil.copytree(two_pass_bundle, tmp_path / "b")
    stale = folder / "engines" / "tensorrt_rtx" / "sm89" / "x.engine"
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"half")
    assert list(doctor.report(folder))[-1].startswith(
        "engines/tensorrt_rtx/sm89/x.engine: has no readable record"
    )


@pytest.mark.parametrize("arguments", [[], ["--prompt", "fog"]])
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
    assert list(doctor.report(with_engine))[-1].endswith(
        f"fits the bundle and the installed tensorrt_rtx {version}"
    )
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    last = list(doctor.report(with_engine))[-1]
    assert last.endswith(
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
    assert first.exit_code == 0 and "graphs: " in first.output
    assert first.output == second.output


def test_options_of_a_video_are_none_of_doctor_s(two_pass_bundle):
    result = CliRunner().invoke(main, ["--prompt", "fog", "doctor"])
    assert result.exit_code == 2 and "--prompt: doctor has no use for it" in result.output
