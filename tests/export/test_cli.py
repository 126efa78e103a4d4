"""`ltx-export` as a user meets it."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

import ltxrt.export
from ltxrt.engines.backend import load_engine
from ltxrt.engines.bundle import read_bundle
from ltxrt.engines.errors import InputError
from ltxrt.export import write as build
from ltxrt.export.checkpoint.safetensors import SafetensorsFile
from ltxrt.export.cli import main, parse_precisions
from ltxrt.parity.synthetic import models as synthetic_models

NAMES = ("transformer", "vae_decoder")


def run(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


def test_inspect_says_what_a_file_is(tiny_checkpoint):
    result = run("inspect", tiny_checkpoint("0.9.1") / "model.safetensors")
    assert result.exit_code == 0
    for text in ("LTX-Video 0.9.1", "transformer", "vae", "F32", "not in it: text encoder", "licence"):
        assert text in result.output


def test_an_uncertain_version_names_the_option_that_settles_it(tiny_checkpoint):
    output = run("inspect", tiny_checkpoint("0.9.5") / "model.safetensors").output
    assert "--model-version NAME" in output
    assert "--model-version" in run("onnx", "--help").output


@pytest.mark.parametrize("arguments", [["--help"], ["onnx", "--help"]])
def test_help_imports_no_torch(arguments):
    code = (
        "import sys\nfrom ltxrt.export.cli import main\n"
        f"main({arguments!r}, standalone_mode=False)\n"
        "print(sorted({'torch', 'transformers', 'onnx'} & set(sys.modules)))"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.splitlines()[-1] == "[]"


def test_inspect_works_without_torch_and_says_what_it_did_not_compare(tiny_checkpoint):
    file = str(tiny_checkpoint("0.9.5") / "model.safetensors")
    code = (
        "import sys\nsys.modules.update(dict.fromkeys(['torch', 'transformers', 'onnx']))\n"
        f"from ltxrt.export.cli import main\nmain(['inspect', {file!r}], standalone_mode=False)"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "LTX-Video 0.9.5" in output
    assert output.splitlines()[-1].startswith("tensors were not compared with the config, which takes torch")
    assert "not compared" not in run("inspect", file).output


def test_one_component_is_exported_with_progress(tiny_checkpoint, tmp_path):
    file = tiny_checkpoint("0.9.5") / "model.safetensors"
    twice = ("--component", "transformer") * 2
    result = run("onnx", file, *twice, "--output", tmp_path / "b")
    assert result.exit_code == 0, result.output
    for text in (
        "not exported: text_encoder, vae_encoder, vae_decoder",
        "transformer fp32: tracing",
        "b: transformer in",
    ):
        assert text in result.output
    assert (tmp_path / "b" / "bundle.json").is_file()


@pytest.fixture
def damaged(tiny_checkpoint, tmp_path):
    """Files that are not checkpoints, by name."""
    whole = (tiny_checkpoint("0.9.5") / "model.safetensors").read_bytes()
    contents = {
        "cut.safetensors": whole[: len(whole) // 2],
        "empty.safetensors": b"",
        "header.safetensors": b"\xff" * 4096,
        "old.ckpt": b"\x80\x02}q\x00.",
        "pointer.safetensors": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


@pytest.mark.parametrize("command", [["inspect"], ["onnx", "--output", "never"]])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cut.safetensors", "bytes"),
        ("empty.safetensors", "empty"),
        ("header.safetensors", "header"),
        ("old.ckpt", "safetensors"),
        ("pointer.safetensors", "git-lfs|LFS|lfs"),
        ("absent.safetensors", "no such"),
    ],
)
def test_a_file_that_is_no_checkpoint_gets_one_line(damaged, monkeypatch, command, name, message):
    monkeypatch.chdir(damaged)
    result = run(*command, "--quiet", name) if command[0] == "onnx" else run(*command, name)
    assert result.exit_code == 2
    (line,) = result.output.splitlines()
    assert line.startswith("error: ") and name in line
    assert any(m in line for m in message.split("|")), line
    assert not (damaged / "never").exists()


@pytest.mark.parametrize("command", [["inspect"], ["onnx", "--output", "never"]])
def test_the_command_itself_ends_with_one_line_and_status_2(damaged, command):
    program = [sys.executable, "-m", "ltxrt.export.cli", *command, "cut.safetensors"]
    result = subprocess.run(program, cwd=damaged, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (2, "")
    *stages, line = result.stderr.splitlines()
    assert "loading torch" not in stages, "damage is found before"
    assert line.startswith("error: cut.safetensors") and "bytes" in line


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--precision", "int4"], "--precision 'int4' for"),
        (["--precision", "unet=fp16"], "--precision names 'unet'"),
        (["--precision", "transformer=fp16,transformer=bf16"], "names a component twice"),
        (["--component", "text_encoder"], "has no text_encoder; give --text-encoder"),
        (["--component", "unet"], "'unet' is not one of"),
        (["--text-encoder", "absent"], "absent"),
        (["--model-version", "0.9.9"], "version '0.9.9' is not known"),
        (["--model-version", "0.9.0"], "0.9.0"),
        (["--vae", "absent.safetensors"], "absent.safetensors"),
    ],
)
def test_wrong_options_get_one_line(tiny_checkpoint, tmp_path, options, message):
    file = tiny_checkpoint("0.9.5") / "model.safetensors"
    result = run("onnx", file, "--output", tmp_path / "b", *options)
    assert result.exit_code == 2
    assert message in result.output.splitlines()[-1]
    assert "Traceback" not in result.output and not (tmp_path / "b").exists()


def test_scales_that_are_not_there_are_found_before_torch_is_imported(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ltxrt.export.write", None)
    options = ("--output", tmp_path / "b", "--precision", "transformer=fp8", "--scales", tmp_path / "gone")
    result = run("onnx", tmp_path / "model.safetensors", *options)
    assert result.exit_code == 2 and "gone: no such file; give one that" in result.output


def test_precisions_are_one_for_all_or_a_list():
    assert parse_precisions("fp16", NAMES) == {"transformer": "fp16", "vae_decoder": "fp16"}
    assert parse_precisions("transformer=bf16", NAMES) == {"transformer": "bf16", "vae_decoder": "fp32"}
    for text in ("transformer=", "=fp16", "transformer=fp16,vae=fp32", ""):
        with pytest.raises(InputError, match="precision"):
            parse_precisions(text, NAMES)


def test_full_size_models_are_the_releases():
    """What docs/full-size.md measures is the releases' own size."""
    assert synthetic_models.full("0.9.8-13b-dev").transformer.layers == 48


def test_fp8_checkpoints_are_exported_with_a_warning(tiny_checkpoint, tmp_path):
    """A plain cast without scales, as the official FP8 files are: what it lost does not come back."""
    source = tiny_checkpoint("0.9.5") / "model.safetensors"
    tensors = load_file(source)
    cast = {n: t.to(torch.float8_e4m3fn) if ".ff." in n and t.ndim == 2 else t for n, t in tensors.items()}
    save_file(cast, tmp_path / "fp8.safetensors", SafetensorsFile(source).metadata)
    arguments = ("--component", "transformer", "--model-version", "0.9.5", "--output", tmp_path / "b")
    result = run("onnx", tmp_path / "fp8.safetensors", *arguments)
    assert result.exit_code == 0, result.output
    assert result.output.count("warning: FP8 weights without scales (a plain cast)") == 1
    bundle = read_bundle(tmp_path / "b")
    feed = bundle.contract("transformer").sample({"B": 1, "N": 6, "K": 1, "T": 4}, np.random.default_rng(0))
    assert np.isfinite(load_engine(bundle, "transformer")(**feed)["velocity"]).all()


@pytest.mark.parametrize("chosen", [(), ("--component", "transformer")])
def test_a_release_of_two_passes_says_what_it_lacks(tiny_checkpoint, tmp_path, monkeypatch, chosen):
    """Before the export, which is not run here; a part of a bundle says no more than what it leaves out."""
    monkeypatch.setattr(build, "export_bundle", lambda plan, report: None)
    file = tiny_checkpoint("0.9.8-2b-distilled") / "model.safetensors"
    version = ("--model-version", "0.9.8-2b-distilled")
    result = run("onnx", file, *version, *chosen, "--output", tmp_path / "b")
    assert result.exit_code == 0, result.output
    sentence = (
        "the default preset of this release has two passes and needs the latent upsampler between them: give "
        "--upsampler; until the bundle has it, its default is the preset single-pass"
    )
    assert "latent_upsampler" in result.output
    assert (sentence in result.output.splitlines()) == (not chosen)
    assert ("a video needs the text encoder: give --text-encoder" in result.output) == (not chosen)


def test_verify_names_what_is_not_as_it_was_exported(tiny_bundle, tmp_path):
    """A changed weight of the same size, a changed tokenizer, an engine without record; what is cut is 2."""
    bundle = shutil.copytree(tiny_bundle("0.9.5"), tmp_path / "bundle")
    files = len(list(dict.fromkeys(read_bundle(bundle).files())))
    result = run("verify", "--bundle", bundle)
    assert (result.exit_code, result.stdout) == (0, f"{files} of {files} files are as recorded\n")
    assert "hashing the bundle" in result.stderr
    weights, tokenizer = "onnx/vae_decoder.fp32.onnx.data", "tokenizer/tokenizer.json"
    for name in (weights, tokenizer):
        content = bytearray((bundle / name).read_bytes())
        content[len(content) // 2] ^= 1
        (bundle / name).write_bytes(content)
    engine = bundle / "engines" / "tensorrt_rtx" / "sm89" / "transformer.fp32.0123456789abcdef.engine"
    engine.parent.mkdir(parents=True)
    engine.touch()
    result = run("verify", "--bundle", bundle)
    *lines, summary, last = result.stdout.splitlines()
    assert result.exit_code == 1 and summary == f"{files - 2} of {files} files are as recorded"
    assert len(lines) == 2 and all("changed or damaged" in line for line in lines)
    assert all(any(name in line for line in lines) for name in (weights, tokenizer))
    assert engine.name in last and "no readable record" in last
    (bundle / weights).write_bytes(b"cut")
    result = run("verify", "--bundle", bundle)
    assert result.exit_code == 2 and f"{weights} has 3 bytes" in result.output


def test_the_package_opens_and_exports_without_its_parts_names(tiny_checkpoint, tmp_path):
    """What `ltxrt.export` says others may use."""
    file = tiny_checkpoint("0.9.5") / "model.safetensors"
    checkpoint = ltxrt.export.open_checkpoint(file, "0.9.5")
    with pytest.raises(InputError, match="picture is not for this model"):
        ltxrt.export.open_checkpoint(file, picture="x.png")
    told = []
    plan = ltxrt.export.Plan(checkpoint, tmp_path / "bundle", {"vae_encoder": "fp32"})
    ltxrt.export.export_bundle(plan, told.append)
    assert list(dict.fromkeys(one.stage for one in told)) == list(plan.stages)
    assert list(read_bundle(tmp_path / "bundle").components) == ["vae_encoder"]
    assert all(hasattr(ltxrt.export, name) for name in ltxrt.export.__all__)
