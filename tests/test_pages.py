"""What the pages show to be run is run: every command and every Python block, in a page's order, as printed.

Each page has a folder of its own with files of the names that it uses: small checkpoints with random weights,
small pictures. A bundle's presets are of a small size, so that a command without a size takes a second. What
cannot run here is listed with its reason, and checked as far as it can be.
"""

import dataclasses
import json
import re
import shlex
import shutil
import tomllib
from pathlib import Path

import hub_server
import numpy as np
import pages
import pytest
from click.testing import CliRunner
from huggingface_hub import constants
from PIL import Image

from ltxrt.export.cli import main as ltx_export
from ltxrt.parity.synthetic import checkpoint as synthetic
from ltxrt.parity.synthetic import models as synthetic_models
from ltxrt.runtime.media.write import VideoWriter

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
# Pages that take more than seconds of a processor.
SLOW = {"docs/deploy.md", "docs/fp8.md", "docs/parity.md", "docs/precision.md"}
CHECKPOINT, TEXT_ENCODER = "ltx-video-2b-v0.9.5.safetensors", "PixArt-XL-2-1024-MS"
UPSAMPLER = "ltxv-spatial-upscaler-0.9.8.safetensors"
# Words of a command that stand for something of the reader's, or are too large for a small model.
WORDS = {
    "CHECKPOINT": CHECKPOINT,
    "T5": TEXT_ENCODER,
    "model.safetensors": CHECKPOINT,
    ";11,25;19": ";1,3;2",  # blocks: the small transformer has four
}
# Not run here, by what a command begins with, each with its reason.
NOT_RUN = {
    r"git clone": "no network",
    r"docker build": "no container engine; tests/test_deploy.py checks the file",
    r"docker run .*--gpus": "no GPU",
    r"polygraphy ": "tests/parity/check runs it where the package's command is",
    r"python -m ltxrt.parity.proofs": "minutes to hours, and tens of gigabytes",
    r"python -m ltxrt.parity.gpu": "half an hour on a GPU; tests/parity/test_gpu.py runs its trial",
    r"python -m ltxrt.parity.fuzz": "minutes; tests/parity/test_fuzz.py runs a part",
    r"ltx-parity bench": "minutes of measuring; tests/parity/bench runs a small one",
    r"(eval .*)?_LTX_RUN_COMPLETE": "for a shell; tests/runtime/cli/test_completion.py asks as shells do",
    r"ltx-run .*--backend (tensorrt|cuda|onnxruntime_cuda|trt|rtx)": "no GPU",
}
YAML = """\
pipeline_type: base
checkpoint_path: "ltxv-2b-0.9.safetensors"
guidance_scale: 3
stg_scale: 1
rescaling_scale: 0.7
skip_block_list: [1]
num_inference_steps: 20
precision: "bfloat16"
decode_timestep: 0.05
decode_noise_scale: 0.025
stochastic_sampling: false
"""


def pictures(folder):
    """Every picture and clip that a page names."""
    y, x = np.mgrid[0:96, 0:144].astype(np.float32)
    for shade, name in enumerate(("first", "day", "night")):
        picture = np.stack([x, y + 40 * shade, 255 - x], axis=-1).clip(0, 255).astype(np.uint8)
        Image.fromarray(picture).save(folder / f"{name}.png")
    with VideoWriter(folder / "clip.mp4", 96, 144, 25, {}) as writer:
        for shift in range(25):
            writer.write(np.roll(picture, 4 * shift, axis=1))


@pytest.fixture(scope="session")
def stock(made, run_command, tiny_upsampler):
    """The folder that every page begins with. Four layers, so that two are quantised."""

    def fill(work):
        models = synthetic_models.tiny("0.9.5")
        dit = dataclasses.replace(models.transformer, layers=4)
        synthetic.write_official(work / CHECKPOINT, dit, models.vae, models.scheduler)
        synthetic.write_text_encoder(work / TEXT_ENCODER, models.text_encoder)
        shutil.copy(tiny_upsampler("latent_upsampler"), work / UPSAMPLER)
        options = ("--text-encoder", work / TEXT_ENCODER, "--output", work / "bundle")
        run_command(ltx_export, "onnx", work / CHECKPOINT, *options)
        pictures(work)
        (work / "prompts.txt").write_text("waves on a shore\na lighthouse in fog\n")
        (work / "ltxv-2b-0.9.yaml").write_text(YAML)

    return made("pages", fill)


@pytest.fixture
def hub(stock, tmp_path_factory, monkeypatch):
    """The hub with the stock's checkpoint and text encoder under the names that pages have."""
    models, text = tmp_path_factory.mktemp("models"), tmp_path_factory.mktemp("text")
    shutil.copy(stock / CHECKPOINT, models / hub_server.FILE)
    shutil.copytree(stock / TEXT_ENCODER, text / "text_encoder")
    (text / "text_encoder" / "tokenizer").rename(text / "tokenizer")
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.split("/{repo_id}")[1]
    served = hub_server.Hub({hub_server.LTX: models, hub_server.T5: text})
    with hub_server.serving(served) as running:
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path_factory.mktemp("cache")))
        monkeypatch.setattr(constants, "ENDPOINT", running.address)
        url = f"{running.address}/{{repo_id}}{template}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url)
        yield running


def shrink(bundle):
    """Make the sizes of a bundle's presets those of a small model."""
    manifest = bundle / "bundle.json"
    data = json.loads(manifest.read_text())
    for preset in data["presets"].values():
        preset.update(height=64, width=96, num_frames=min(preset["num_frames"], 97))
    manifest.write_text(json.dumps(data))


def why_not(text):
    """The reason for which a command is not run here, "" where it is."""
    return next((reason for start, reason in NOT_RUN.items() if re.match(start, text)), "")


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def checked(words):
    """What can be said of a command of another program: its extras and targets exist."""
    if words[0] == "pip":
        extras = re.findall(r"\[([\w,-]+)\]", " ".join(words))
        assert set(",".join(extras).split(",")) - {""} <= set(PROJECT["optional-dependencies"]), words
        assert words[1] in ("install", "uninstall"), words
    elif words[0] == "make":
        rules = (ROOT / "Makefile").read_text()
        targets = [word for word in words[1:] if "=" not in word]
        assert targets and all(re.search(rf"^{re.escape(t)}:", rules, re.MULTILINE) for t in targets), words
    else:
        raise AssertionError(f"{shlex.join(words)} is neither run nor in NOT_RUN")


def run(shown, names):
    """Run one piece of a page in the present folder."""
    if shown.language == "python":
        exec(compile(shown.text, "page", "exec"), names)
        return
    if why_not(shown.text):
        return
    words = [WORDS.get(word, word) for word in shown.words]
    if words[0] == "docker":  # what the image's command is given
        image = next(i for i, word in enumerate(words) if word.startswith("ltxrt:"))
        words = ["ltx-export" if words[image] == "ltxrt:export" else "ltx-run", *words[image + 1 :]]
    if words[0] not in pages.COMMANDS and words[:2] != ["python", "-m"]:
        checked(words)
        return
    command, rest = pages.resolved(words)
    done = CliRunner().invoke(command, rest)
    assert done.exit_code == 0, f"{shlex.join(words)}\n{done.output}"
    if words[:2] == ["ltx-export", "onnx"]:
        shrink(Path(rest[rest.index("--output") + 1]))
    elif "--output" in rest:
        output = Path(rest[rest.index("--output") + 1])
        assert [*output.parent.glob(re.sub(r"\{\w+\}", "*", output.name))], words


def identity(page):
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize(
    "page",
    [pytest.param(p, marks=pytest.mark.slow) if identity(p) in SLOW else p for p in PAGES],
    ids=identity,
)
def test_what_a_page_shows_runs(page, request, tmp_path, monkeypatch):
    pieces = list(pages.shown(page.read_text(encoding="utf-8")))
    if not any(p.language == "python" or not why_not(p.text) for p in pieces):
        return
    shutil.copytree(request.getfixturevalue("stock"), tmp_path, dirs_exist_ok=True)
    if any("ltx-export onnx" in p.text and "--component" not in p.text for p in pieces):
        shutil.rmtree(tmp_path / "bundle")
    else:
        shrink(tmp_path / "bundle")
    if any(hub_server.LTX in p.text for p in pieces):
        request.getfixturevalue("hub")
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "page"}
    for piece in pieces:
        run(piece, names)
