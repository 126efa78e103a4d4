"""Every component in every GPU precision, from the commands that users run to engines of TensorRT for RTX.

Head sizes are the releases' (64 and 128), depth and width are not. No GPU is needed to compile.
"""

import dataclasses

import pytest
from click.testing import CliRunner

from ltxrt.engines.bundle import read_bundle
from ltxrt.export.cli import main
from ltxrt.export.ltxv.config import TextEncoderConfig
from ltxrt.export.ltxv.open import open_checkpoint
from ltxrt.parity.check import inputs
from ltxrt.parity.check import run as check
from ltxrt.parity.synthetic import checkpoint as synthetic
from ltxrt.parity.synthetic import models as synthetic_models

HEADS = {"0.9.0": 64, "0.9.1": 128, "0.9.5": 64}
PRECISIONS = ("fp16", "bf16", "fp8", "fp8 with attention")
# The other pairs are slow. Tests of the engine cache, of the second family and of parity/gpu also compile, a
# component at a time.
QUICK = (("0.9.1", "fp8 with attention"),)
PAIRS = [
    pytest.param(version, precision, marks=[] if (version, precision) in QUICK else pytest.mark.slow)
    for version in HEADS
    for precision in PRECISIONS
]
TARGETS = ("sm89", "sm120")
PROFILES = ("128x128x9", "128x128..160x9..25")  # FP8 attention begins at 32 tokens


def run(*arguments):
    return CliRunner().invoke(main, list(map(str, arguments)))


@pytest.fixture(scope="module")
def checkpoint(request, tmp_path_factory):
    """A small checkpoint of one autoencoder graph, its transformer deep enough for quantised blocks."""
    version = request.param
    folder = tmp_path_factory.mktemp("compile")
    models = synthetic_models.tiny(version)
    transformer = dataclasses.replace(
        models.transformer,
        layers=3,
        heads=2,
        head_size=HEADS[version],
        cross_attention_width=2 * HEADS[version],
    )
    synthetic.write_official(folder / "model.safetensors", transformer, models.vae, models.scheduler)
    synthetic.write_text_encoder(folder / "t5", TextEncoderConfig(32, 2, 2, 64, 64, 384))
    return version, folder


def check_parity(bundle, folder, version):
    """The graphs as they are written, against torch, on inputs of small sampling runs."""
    opened = open_checkpoint(folder / "model.safetensors", None, folder / "t5", version)
    plan = inputs.Plan(((64, 96, 9),), 2)
    report, _ = check.run(
        check.Order(read_bundle(bundle), opened, plan, backends=("emulated",)), lambda _: None
    )
    assert report.status == "passed", [c.problems for c in report.checks]
    assert {c.component for c in report.checks} == {
        "text_encoder",
        "transformer",
        "vae_encoder",
        "vae_decoder",
    }


@pytest.mark.parametrize(("checkpoint", "precision"), PAIRS, indirect=["checkpoint"])
def test_everything_compiles(checkpoint, precision, tmp_path):
    """And, where all components are there, computes what torch computes."""
    version, folder = checkpoint
    names = (
        ("transformer",)
        if precision.startswith("fp8")
        else ("text_encoder", "transformer", "vae_encoder", "vae_decoder")
    )
    export = [
        "onnx",
        folder / "model.safetensors",
        "--text-encoder",
        folder / "t5",
        "--model-version",
        version,
    ]
    extra = ["--uncalibrated"] if precision.startswith("fp8") else []
    extra += ["--fp8-attention"] if "attention" in precision else []
    components = [option for name in names for option in ("--component", name)]
    made = run(*export, *components, "--precision", precision.split()[0], *extra, "--output", tmp_path / "b")
    assert made.exit_code == 0, made.stderr
    profiles = [option for text in PROFILES for option in ("--profile", text)]
    build = ["build-engines", "--bundle", tmp_path / "b", "--backend", "tensorrt_rtx"]
    built = run(*build, "--target", ",".join(TARGETS), *profiles)
    assert built.exit_code == 0, built.stderr
    lines = built.stdout.splitlines()
    assert len(lines) == len(names) * len(TARGETS)
    whole = [line for line in lines if "attentions" in line]
    assert all("12 of 12" in line or "2 of 2" in line or "6 of 6" in line for line in whole), whole
    files = sorted(
        p.relative_to(tmp_path / "b" / "engines").parts[1] for p in (tmp_path / "b").rglob("*.engine")
    )
    assert files == sorted(TARGETS * len(names))
    if len(names) > 1:
        check_parity(tmp_path / "b", folder, version)
