"""`ltx-export inspect` on every file that a command takes or makes."""

import json
import shutil
import sys

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hub_server import FILE, LTX, T5, TWO_PASS_FILE, UPSAMPLER
from PIL import Image
from safetensors.torch import load_file, save_file

from ltxrt.export.cli import main
from ltxrt.runtime.media.write import VideoWriter

FLAT = np.zeros((1, 16, 16, 3), np.uint8)


def inspect(*arguments):
    """(lines, data) of `ltx-export inspect`."""
    texts = [CliRunner().invoke(main, ["inspect", *map(str, arguments), *more]) for more in ((), ("--json",))]
    assert [one.exit_code for one in texts] == [0, 0], texts[0].output
    events = [json.loads(line) for line in texts[1].output.splitlines()]
    return texts[0].output, next(event for event in events if event["event"] == "result")


def lora(path):
    tensors = {}
    for block in range(2):
        for layer in ("to_q", "to_v"):
            name = f"transformer.transformer_blocks.{block}.attn1.{layer}"
            tensors[f"{name}.lora_A.weight"] = torch.zeros(8, 64)
            tensors[f"{name}.lora_B.weight"] = torch.zeros(64, 8)
    save_file(tensors, path)


def video(path):
    with VideoWriter(path, 32, 48, 25.0, {"prompt": "a cat", "software": "ltxrt 0.1.0"}) as writer:
        for _ in range(3):
            writer.write(np.zeros((32, 48, 3), np.uint8))


@pytest.fixture
def files(tmp_path, tiny_checkpoint, tiny_upsampler, tiny_bundle):
    """One of each kind, by name."""
    checkpoint, bundle = tiny_checkpoint("0.9.5"), tiny_bundle("0.9.5")
    made = {name: tmp_path / name for name in ("vae.safetensors", "lora.safetensors", "cat.mp4", "cat.gif")}
    tensors = load_file(checkpoint / "model.safetensors")
    vae = {name.removeprefix("vae."): t for name, t in tensors.items() if name.startswith("vae.")}
    save_file(vae, made["vae.safetensors"])
    lora(made["lora.safetensors"])
    for name in ("cat.mp4", "cat.gif"):
        video(made[name])
    texts = {
        "scales.json": json.dumps({"schema": 1, "model": "tiny", "amax": {"a": 1.0, "b": 2.0}}),
        "run.yaml": "steps: 7\nguidance_scale: 3\n",
        "prompts.txt": "a cat\na dog\n",
    }
    for name, text in texts.items():
        made[name] = tmp_path / name
        made[name].write_text(text)
    made["noise.npy"], made["cat.png"] = tmp_path / "noise.npy", tmp_path / "cat.png"
    np.save(made["noise.npy"], np.zeros((1, 16, 3, 2, 2), np.float32))
    Image.new("RGB", (48, 32)).save(made["cat.png"])
    return {
        **made,
        "checkpoint": checkpoint / "model.safetensors",
        "text encoder": checkpoint / "t5",
        "upsampler": tiny_upsampler("latent_upsampler"),
        "bundle": bundle,
        "manifest": bundle / "bundle.json",
        "graph": next(bundle.glob("onnx/vae_decoder.*.onnx")),
    }


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("checkpoint", "checkpoint", ["LTX-Video 0.9.5", "parameters", "licence: "]),
        ("vae.safetensors", "checkpoint", ["vae: ", "not in it: transformer, text encoder"]),
        (
            "text encoder",
            "text encoder",
            ["ltx-export onnx takes it with --text-encoder", "T5 v1.1", "tokenizer in "],
        ),
        (
            "upsampler",
            "latent upsampler",
            ["takes it with --upsampler", "spatial, doubles height and width", "parameters"],
        ),
        ("lora.safetensors", "LoRA", ["LoRA of rank 8 for 4 layers in 2 blocks", "to_q, to_v", "merge it"]),
        (
            "bundle",
            "bundle",
            ["bundle of LTX-Video 0.9.5", "transformer: fp32", "preset default: ", "nothing yet"],
        ),
        ("manifest", "bundle", ["bundle of LTX-Video 0.9.5"]),
        (
            "graph",
            "graph",
            ["graph of vae_decoder fp32, in the bundle", "in: latents f32 (B, 16", "out: pixels"],
        ),
        ("scales.json", "scales", ["of 2 activations", "model: tiny"]),
        ("cat.mp4", "video", ["made by ltx-run, 48x32 at 25 frames/s", "prompt: a cat"]),
        ("cat.gif", "video", ["made by ltx-run, 48x32", "prompt: a cat"]),
        ("run.yaml", "settings", ["settings for ltx-run --config", "steps: 7"]),
        ("prompts.txt", "prompts", ["2 requests for ltx-run --prompts"]),
        ("noise.npy", "array", ["noise, for ltx-run --noise-file: float32 of shape 1x16x3x2x2"]),
        ("cat.png", "picture", ["PNG picture of 48x32"]),
    ],
)
def test_every_kind_of_file_is_explained(files, name, kind, words):
    text, data = inspect(files[name])
    assert data["kind"] == kind and "\n".join(data["description"]) == text.rstrip("\n")
    for word in words:
        assert word in text, text


def test_the_data_of_a_bundle_has_its_components(files):
    _, data = inspect(files["bundle"])
    assert set(data["components"]) == {"text_encoder", "transformer", "vae_encoder", "vae_decoder"}
    assert data["components"]["transformer"]["fp32"] > 10_000
    assert data["version"] == "0.9.5"


def test_an_engine_is_explained_by_its_record(files, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(files["bundle"], folder)
    engine = folder / "engines" / "tensorrt" / "gpu" / "vae_decoder.fp32.0.engine"
    engine.parent.mkdir(parents=True)
    engine.write_bytes(b"x")
    text, data = inspect(engine)
    assert data["kind"] == "engine" and "not usable: " in text
    assert "engines: 1 for gpu (tensorrt)" in inspect(folder)[0]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("nowhere", None, "nowhere: no such file or folder"),
        ("a.safetensors", b"", "is empty"),
        ("a.yaml", b"steps: [", "is not valid YAML at line 1"),
        ("a.npy", b"x", "is no readable .npy array"),
        ("a.png", b"x", "a.png"),
        ("a.mp4", b"x", "a.mp4"),
        ("a.json", b"{", "safetensors"),
        ("a.gguf", b"GGUF", "safetensors"),
    ],
)
def test_what_cannot_be_read_is_one_line(tmp_path, monkeypatch, name, content, message):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        (tmp_path / name).write_bytes(content)
    result = CliRunner().invoke(main, ["inspect", name])
    assert result.exit_code == 2, result.output
    (line,) = result.output.splitlines()
    assert line.startswith("error: ") and message in line


def test_a_name_on_the_hub_is_explained_without_its_weights(hub):
    text, data = inspect(f"{LTX}:{FILE}")
    assert "LTX-Video 0.9.6-dev" in text and "2 layers" in text
    assert f"{LTX}@0123456789ab: {FILE}" in text and f"{T5}@0123456789ab: 3 files" in text
    assert "which has" in text and f"licence of {T5}: other" in text
    assert [one["repository"] for one in data["downloads"]] == [LTX, T5]
    assert data["downloads"][0]["missing"] == data["downloads"][0]["bytes"] > 100_000
    assert not any(name.endswith(".safetensors") for name in hub.downloads())


def test_a_two_pass_release_on_the_hub_names_its_upsampler(hub):
    assert UPSAMPLER in inspect(f"{LTX}:{TWO_PASS_FILE}")[0]


def test_an_upsampler_on_the_hub_is_explained(hub):
    text, data = inspect(f"{LTX}:{UPSAMPLER}")
    assert data["kind"] == "latent upsampler" and f"{LTX}@0123456789ab:{UPSAMPLER}: latent" in text
    assert hub.downloads() == []


def test_a_bundle_and_a_video_are_explained_without_torch(files, monkeypatch):
    for name in ("torch", "transformers", "onnx"):
        monkeypatch.setitem(sys.modules, name, None)
    assert inspect(files["bundle"])[1]["kind"] == "bundle"
    assert inspect(files["cat.mp4"])[1]["kind"] == "video"
