"""`ltx-parity calibrate` before and around its work; what scales are good for: export/test_quantise.py."""

import dataclasses
import json
import shutil
import subprocess
import sys

import pytest
from click.testing import CliRunner

from ltxrt.engines.bundle import read_bundle, write_bundle
from ltxrt.export.ltxv import versions
from ltxrt.parity import calibrate
from ltxrt.parity.cli import main
from ltxrt.runtime import engine_pool

SIZE = ("--height", 64, "--width", 96, "--num-frames", 9)


@pytest.fixture
def case(parity_case, tmp_path):
    """A copy of the bundle with the presets of a release of two passes, and prompts; no latent upsampler."""
    shutil.copytree(parity_case / "bundle", tmp_path / "bundle")
    found = read_bundle(tmp_path / "bundle")
    presets = versions.presets(versions.version("0.9.8-2b-distilled"), 4)
    write_bundle(found.root, dataclasses.replace(found, presets=presets))
    (tmp_path / "prompts.txt").write_text("fog\n")
    return tmp_path


def run(folder, *arguments):
    given = (
        "--bundle",
        folder / "bundle",
        "--prompts",
        folder / "prompts.txt",
        "--output",
        folder / "s.json",
    )
    return CliRunner().invoke(main, list(map(str, ("calibrate", *given, *SIZE, *arguments))))


def with_graphs(folder, **components):
    """The bundle with these precisions of some components only."""
    found = read_bundle(folder)
    kept = {
        name: {p: graph for p, graph in graphs.items() if p in components.get(name, graphs)}
        for name, graphs in found.components.items()
    }
    write_bundle(folder, dataclasses.replace(found, components=kept))


def test_without_an_upsampler_it_says_that_it_takes_the_single_pass(case):
    done = run(case)
    assert done.exit_code == 0, done.output
    loading, warning, *_, last = done.output.splitlines()
    assert loading == "loading torch"
    assert warning.startswith("the default preset has two passes and the bundle has no latent upsampler")
    assert "calibrating on --preset single-pass" in warning
    assert "sampling: step 0/8" in done.stderr
    assert last.endswith("s.json: 26 projections, 1 prompts")
    assert json.loads((case / "s.json").read_text())["settings"]["preset"] == "single-pass"


def test_a_preset_that_was_named_is_not_replaced(case):
    done = run(case, "--preset", "default")
    assert done.exit_code == 2 and not (case / "s.json").exists()
    *_, line = done.output.splitlines()
    assert "the bundle has no latent_upsampler, which the second of two passes needs; add it with: " in line
    assert "--upsampler FILE --component latent_upsampler" in line
    assert line.endswith("; or run one pass: --preset single-pass")


@pytest.mark.parametrize(
    ("there", "message"),
    [
        ({"transformer": ("bf16", "fp8")}, "has transformer in bf16, fp8, and calibration runs fp32 or fp16"),
        ({"text_encoder": ("bf16",)}, "text_encoder in bf16: onnxruntime does not run bf16; take another"),
    ],
)
def test_what_the_cpu_does_not_run_is_said_with_the_way_out(case, there, message):
    with_graphs(case / "bundle", **there)
    done = run(case)
    assert done.exit_code == 2, done.output
    (line,) = (line for line in done.output.splitlines() if line.startswith("error: "))
    assert message in line and "--precision fp32 --output" in line


def test_a_place_that_cannot_be_written_is_found_before_the_work(case):
    done = run(case, "--output", case / "nowhere" / "s.json")
    assert done.exit_code == 2 and "nowhere is no folder; make it" in done.output


def test_help_loads_nothing_and_a_missing_package_names_its_extra(tmp_path):
    """Both from a fresh interpreter: what it has loaded is what is asked."""
    code = (
        "import sys\n"
        "from ltxrt.parity.calibrate import main\n"
        "main(['--help'], standalone_mode=False)\n"
        "print(sorted({'numpy', 'onnx', 'onnx_ir', 'onnxruntime', 'torch'} & set(sys.modules)))\n"
        "sys.modules['onnx'] = None\n"
        "main()"
    )
    bundle = tmp_path / "bundle"
    arguments = ["--bundle", bundle, "--prompts", "p", "--output", "s"]
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert done.returncode == 1, done.stderr
    assert (
        done.stderr.splitlines()[-1]
        == "error: onnx is not installed; install it with: pip install 'ltxrt[export,cpu]'"
    )


def test_scales_and_references_are_of_no_backend_that_a_machine_happens_to_have(tiny_bundle, monkeypatch):
    from ltxrt.parity.calibration import ObservedEngines
    from ltxrt.parity.check.inputs import ReferenceEngines

    monkeypatch.setattr(engine_pool, "best", lambda *_: engine_pool.Choice("tensorrt"))
    bundle = read_bundle(tiny_bundle("0.9.5"))
    for engines in (ObservedEngines(bundle, None, None), ReferenceEngines(bundle, None)):
        assert engines.backend == "onnxruntime"


def test_it_is_one_command_under_both_names():
    assert main.commands["calibrate"] is calibrate.main
