import shutil

import pytest
from click.testing import CliRunner

from ltxrt.engines import doctor, trt
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
