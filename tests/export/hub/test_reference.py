"""Names of files on a hub."""

import pytest

from ltxrt.engines.errors import InputError
from ltxrt.export.hub.reference import Reference, cached_as, parse

LTX = "Lightricks/LTX-Video"
COMMIT = "8984fa25007f376c1a299016d0957a37a2f797bb"


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        (LTX, Reference(LTX)),
        (f"{LTX}:a.safetensors", Reference(LTX, "a.safetensors")),
        (f"{LTX}@v1:a.safetensors", Reference(LTX, "a.safetensors", "v1")),
        (f"{LTX}:a.safetensors@v1", Reference(LTX, "a.safetensors", "v1")),
        (f"{LTX}@v1", Reference(LTX, "", "v1")),
        (f"{LTX}:vae/", Reference(LTX, "vae")),
        (f"hf://{LTX}@v1:a.b", Reference(LTX, "a.b", "v1")),
        (f"https://huggingface.co/{LTX}", Reference(LTX)),
        (f"https://huggingface.co/{LTX}/blob/main/a.safetensors?x=1", Reference(LTX, "a.safetensors")),
        (f"https://huggingface.co/{LTX}/resolve/v1/vae/b%20c.json", Reference(LTX, "vae/b c.json", "v1")),
        (f"https://huggingface.co/{LTX}/tree/main/vae", Reference(LTX, "vae")),
        ("model.safetensors", None),
        ("models/model.safetensors", None),
        ("./a/b", None),
        ("a/b/c", None),
        ("C:\\models\\a", None),
        ("", None),
    ],
)
def test_names_and_paths_are_told_apart(text, reference):
    assert parse(text) == reference


def test_what_is_here_is_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert parse("models/ltx") == Reference("models/ltx")
    (tmp_path / "models").mkdir()
    assert parse("models/ltx") is None


@pytest.mark.parametrize("text", [f"{LTX}:../../etc/passwd", f"{LTX}:a\\b", f"{LTX}:a\x07b"])
def test_a_path_stays_in_its_repository(text):
    with pytest.raises(InputError, match="must be a file or folder of the repository"):
        parse(text)


@pytest.mark.parametrize("text", ["https://example.org/a/b", "ftp://huggingface.co.evil/a/b", "hf://a"])
def test_another_site_is_refused(text):
    with pytest.raises(InputError, match="is no page of a model"):
        parse(text)


def test_a_mirror_is_known_by_its_address(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example")
    assert parse(f"https://mirror.example/{LTX}/blob/main/a") == Reference(LTX, "a")


def test_a_path_in_the_cache_is_named_as_on_the_hub(tmp_path):
    snapshot = tmp_path / "models--Lightricks--LTX-Video" / "snapshots" / COMMIT
    assert cached_as(snapshot / "a.safetensors") == Reference(LTX, "a.safetensors", COMMIT)
    assert str(cached_as(snapshot / "a.safetensors")) == f"{LTX}@{COMMIT[:12]}:a.safetensors"
    assert str(cached_as(snapshot)) == f"{LTX}@{COMMIT[:12]}"
    assert cached_as(tmp_path / "snapshots" / "x") is None
