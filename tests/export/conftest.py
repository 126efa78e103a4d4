"""A hub with the tiny checkpoint under the released names, and an empty cache."""

import shutil

import hub_server
import pytest
from hub_server import FILE, LTX, T5, TWO_PASS_FILE, UPSAMPLER
from huggingface_hub import constants


@pytest.fixture
def repositories(tmp_path, tiny_checkpoint, tiny_upsampler):
    """The folders of both repositories: two single files, an upsampler, T5, and files that nobody needs."""
    models, text = tmp_path / "models", tmp_path / "text"
    models.mkdir()
    shutil.copy(tiny_checkpoint("0.9.6-dev") / "model.safetensors", models / FILE)
    shutil.copy(tiny_checkpoint("0.9.8-2b-distilled") / "model.safetensors", models / TWO_PASS_FILE)
    shutil.copy(tiny_upsampler("latent_upsampler"), models / UPSAMPLER)
    (models / "README.md").write_text("a card")
    shutil.copytree(tiny_checkpoint("0.9.6-dev") / "t5", text / "text_encoder")
    (text / "text_encoder" / "tokenizer").rename(text / "tokenizer")
    (text / "transformer").mkdir()
    (text / "transformer" / "diffusion_pytorch_model.safetensors").write_bytes(b"another model")
    (text / "text_encoder" / "pytorch_model.bin").write_bytes(b"a pickle")
    return {LTX: models, T5: text}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The hub's cache, empty."""
    folder = tmp_path / "cache"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    return folder


@pytest.fixture
def hub(repositories, cache, monkeypatch):
    """The hub that huggingface_hub asks."""
    with hub_server.serving(hub_server.Hub(repositories)) as running:
        monkeypatch.setattr(constants, "ENDPOINT", running.address)
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.split("/{repo_id}")[1]
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{running.address}/{{repo_id}}{template}"
        )
        yield running
