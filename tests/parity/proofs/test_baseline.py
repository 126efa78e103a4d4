"""A few of the hashes from before the second layout; CONTRIBUTING.md has the command that compares all."""

import json
from pathlib import Path

import pytest

from ltxrt.engines.errors import LtxrtError
from ltxrt.export.cli import main as export
from ltxrt.parity.proofs import baseline

WANTED = json.loads(Path(__file__).with_name("baseline.json").read_text())
VERSION = "0.9.5"
RUNS = (
    "t2v 0.9.5",
    "i2v 0.9.5",
    "t2v diffusers 0.9.5",
    "guidance lists",
    "keyframes",
    "clip",
    "video to video",
    "tiles",
)


@pytest.fixture(scope="module")
def exported(tmp_path_factory, run_command):
    """The folder of a bundle in fp32, and the hashes of its graphs and weights; exported in this process."""
    work = tmp_path_factory.mktemp("baseline")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(baseline, "call", lambda command: run_command(export, *command[3:]))  # python -m name …
        return work, baseline.graphs(work, [VERSION], ["fp32"], [])


def test_graphs_and_weights_are_what_they_were(exported):
    _, found = exported
    wanted = {name: digest for name, digest in WANTED["graphs"].items() if name in found}
    assert len(wanted) == len(found) == 12
    if WANTED["machine"] != baseline.machine():  # files of weights hold constants that torch computes
        found = {n: wanted[n] if n.endswith(baseline.WEIGHTS) else digest for n, digest in found.items()}
    assert found == wanted


def test_frames_are_what_they_were(exported):
    work, _ = exported
    if WANTED["machine"] != baseline.machine():
        pytest.skip(f"frames were hashed on {WANTED['machine']}, this is {baseline.machine()}")
    found = baseline.frames(work, RUNS)
    assert len(found) == len(RUNS) and found == {name: WANTED["frames"][name] for name in RUNS}


def test_a_changed_hash_is_a_failure():
    wanted = {**WANTED, "graphs": {**WANTED["graphs"], f"{VERSION}/onnx/vae_decoder.fp32.onnx": "0" * 64}}
    with pytest.raises(LtxrtError, match="differ"):
        baseline.report(wanted, WANTED)
    with pytest.raises(LtxrtError, match="1 hashes differ"):
        baseline.report(wanted, {**WANTED, "machine": "another"})


def test_another_processor_s_weights_and_frames_are_not_compared(capsys):
    graphs = {**WANTED["graphs"], f"{VERSION}/onnx/vae_decoder.fp32.onnx.data": "0" * 64}
    with pytest.raises(LtxrtError, match="differ"):
        baseline.report({**WANTED, "graphs": graphs}, WANTED)
    baseline.report({**WANTED, "graphs": graphs, "frames": {}}, {**WANTED, "machine": "another"})
    assert "not compared" in capsys.readouterr().out
