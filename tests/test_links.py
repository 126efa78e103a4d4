"""Links in every folder of a bundle: no command writes, reads or deletes through one."""

import shutil

import pytest
from click.testing import CliRunner

from ltxrt.engines.bundle import read_bundle
from ltxrt.engines.tensorrt import build as trt
from ltxrt.export import write as build
from ltxrt.export.cli import main as export_main
from ltxrt.parity.calibrate import main as calibrate_main
from ltxrt.parity.check import run
from ltxrt.parity.cli import main as parity_main

FOLDERS = ("onnx", "tokenizer", "engines", "engines/tensorrt_rtx", "engines/tensorrt_rtx/sm89", "parity")
# What lies outside has the names of what is written and deleted inside.
PRECIOUS = (
    "report.json", "report.html", "tokenizer.json", "transformer.fp32.onnx", "notes.json", "x.engine",
    "latent_upsampler.fp32.0123456789abcdef.engine", "transformer.fp32.0123456789abcdef.json",
    ".transformer.fp32.0123456789abcdef.00c0ffee.json", "timing.cache",
    "tensorrt_rtx/sm89/transformer.fp32.0123456789abcdef.json",
    "sm89/transformer.fp32.0123456789abcdef.json",
)  # fmt: skip
COMMANDS = {
    "onnx": (export_main, ("onnx", "{model}", "--text-encoder", "{t5}", "--output", "{bundle}")),
    "build-engines": (
        export_main,
        ("build-engines", "--bundle", "{bundle}", "--backend", "tensorrt_rtx", "--target", "sm89",
         "--profile", "64x96x9", "--component", "latent_upsampler"),
    ),
    "prune": (export_main, ("engines", "prune", "--bundle", "{bundle}")),
    "parity check": (
        parity_main,
        ("check", "--bundle", "{bundle}", "--checkpoint", "{model}", "--text-encoder", "{t5}", "--upsampler",
         "{upsampler}"),
    ),
    "calibrate": (calibrate_main, ("--bundle", "{bundle}", "--prompts", "{prompts}", "--output", "{scales}")),
}  # fmt: skip
WORK = "the work began"
# Which folders a command does not look at; every other link stops it before the work.
UNTOUCHED = {
    "onnx": FOLDERS[2:],
    "build-engines": ("parity",),
    "prune": FOLDERS[2:],
    "parity check": FOLDERS[2:5],
    "calibrate": FOLDERS[2:],
}


@pytest.fixture
def outside(tmp_path):
    folder = tmp_path / "outside"
    for name in PRECIOUS:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("precious")
    return folder


@pytest.fixture
def arguments(two_pass_bundle, tiny_checkpoint, tiny_upsampler, tmp_path):
    checkpoint = tiny_checkpoint("0.9.5")
    (tmp_path / "prompts.txt").write_text("a lighthouse in fog\n")
    return {
        "bundle": shutil.copytree(two_pass_bundle, tmp_path / "bundle"),
        "model": checkpoint / "model.safetensors",
        "t5": checkpoint / "t5",
        "upsampler": tiny_upsampler("latent_upsampler"),
        "prompts": tmp_path / "prompts.txt",
        "scales": tmp_path / "scales.json",
    }


@pytest.fixture
def work(monkeypatch):
    """Every command's work fails at once, with a sentence that shows that it began."""

    def begin(*_arguments, **_options):
        raise RuntimeError(WORK)

    for place, name in (
        (build, "trace"),
        (trt, "build"),
        (run, "run"),
        ("ltxrt.parity.calibration", "run"),
    ):
        target = f"{place}.{name}" if isinstance(place, str) else f"{place.__name__}.{name}"
        monkeypatch.setattr(target, begin)


def tree(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def link(bundle, folder, outside):
    """Put a link in the folder's place; what was in it lies outside, beside what is precious."""
    place = bundle / folder
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.exists():
        shutil.copytree(place, outside, dirs_exist_ok=True)
        shutil.rmtree(place)
    place.symlink_to(outside)


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize("command", COMMANDS)
def test_nothing_outside_is_written_or_deleted(arguments, outside, work, command, folder):
    link(arguments["bundle"], folder, outside)
    before = tree(outside)
    main, words = COMMANDS[command]
    result = CliRunner().invoke(main, [word.format(**arguments) for word in words])
    assert tree(outside) == before
    if folder not in UNTOUCHED[command]:
        assert result.exit_code == 2 and "symbolic link" in result.output and WORK not in result.output
    else:
        assert WORK in result.output or (command, result.exit_code) == ("prune", 0), result.output


@pytest.mark.parametrize("command", ["build-engines", "prune", "parity check"])
def test_a_link_to_a_folder_of_the_bundle_itself_is_no_way_either(arguments, work, command):
    bundle = arguments["bundle"]
    for folder in ("engines", "parity"):
        (bundle / folder).symlink_to("onnx")
    before = tree(bundle)
    main, words = COMMANDS[command]
    result = CliRunner().invoke(main, [word.format(**arguments) for word in words])
    assert tree(bundle) == before and result.exit_code == (0 if command == "prune" else 2)


def test_prune_deletes_what_is_ours_and_nothing_else(arguments):
    bundle = arguments["bundle"]
    folder = bundle / "engines" / "tensorrt_rtx" / "sm89"
    folder.mkdir(parents=True)
    ours = {n for n in PRECIOUS if "0123456789abcdef" in n and "/" not in n}
    for name in PRECIOUS:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("precious")
    (folder / "vae_decoder.fp32.0123456789abcdef.json").symlink_to("notes.json")
    before = set(tree(bundle))
    result = CliRunner().invoke(export_main, ["engines", "prune", "--bundle", str(bundle)])
    assert result.exit_code == 0, result.output
    assert before - set(tree(bundle)) == {f"engines/tensorrt_rtx/sm89/{name}" for name in ours}
    assert "left engines/tensorrt_rtx/sm89/x.engine: its name is none that ltxrt gives" in result.output
    assert (folder / "vae_decoder.fp32.0123456789abcdef.json").is_symlink()
    read_bundle(bundle)


@pytest.mark.parametrize("folder", ["onnx", "tokenizer"])
def test_a_new_bundle_is_not_begun_through_a_link(arguments, outside, work, tmp_path, folder):
    new = tmp_path / "new"
    (new / "onnx").mkdir(parents=True)
    link(new, folder, outside)
    before = tree(outside)
    main, words = COMMANDS["onnx"]
    result = CliRunner().invoke(main, [word.format(**{**arguments, "bundle": new}) for word in words])
    assert tree(outside) == before
    assert result.exit_code == 2 and f"{folder} is a symbolic link" in result.output
