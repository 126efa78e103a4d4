"""Which files of a repository are downloaded."""

import dataclasses
import json

import hub_server
import pytest

from ltxrt.engines.errors import CheckpointError, InputError
from ltxrt.engines.progress import unreported
from ltxrt.export.hub import selection
from ltxrt.export.hub.reference import Reference
from ltxrt.export.hub.repository import open_repository

REPO = "someone/model"
SHARDS = [f"transformer/diffusion_pytorch_model-0000{n}-of-00002.safetensors" for n in (1, 2)]
INDEX = "transformer/diffusion_pytorch_model.safetensors.index.json"
DIFFUSERS = {
    "model_index.json": {"_class_name": "P", "transformer": ["diffusers", "T"], "vae": ["diffusers", "V"]},
    "transformer/config.json": {},
    INDEX: {"weight_map": {"a": SHARDS[0].split("/")[1], "b": SHARDS[1].split("/")[1]}},
    **{name: {} for name in SHARDS},
    "transformer/diffusion_pytorch_model.fp16.safetensors": {},
    "vae/config.json": {},
    "vae/diffusion_pytorch_model.safetensors": {},
    "unet/diffusion_pytorch_model.safetensors": {},
    "samples/a.mp4": {},
}
WANTED = {name for name in DIFFUSERS if not name.startswith(("unet", "samples")) and "fp16" not in name}


@pytest.fixture
def repository(hub, tmp_path):
    """(files) → a repository of the hub with these files, each a JSON object."""

    def make(files):
        for name, data in files.items():
            target = tmp_path / "made" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(json.dumps(data))
        hub.repos[REPO] = tmp_path / "made"
        return open_repository(Reference(REPO))

    return make


@pytest.mark.parametrize("path", ["", selection.MODEL_INDEX])
def test_a_diffusers_repository_is_its_index_and_the_parts_listed_there(repository, path):
    chosen = selection.checkpoint(repository(DIFFUSERS), path, unreported)
    assert set(chosen.files) == WANTED and chosen.opened == ""


def test_beside_single_files_the_folders_must_be_asked_for(repository):
    found = repository({**DIFFUSERS, "a.safetensors": {}, "a-upscaler.safetensors": {}})
    with pytest.raises(InputError, match=r"there are a\.safetensors, model_index\.json$"):
        selection.checkpoint(found, "", unreported)
    assert selection.checkpoint(found, "a.safetensors", unreported).files == ("a.safetensors",)
    assert set(selection.checkpoint(found, selection.MODEL_INDEX, unreported).files) == WANTED


def test_the_only_file_needs_no_name(repository):
    found = repository({"model.safetensors": {}, "some-lora.safetensors": {}, "README.md": {}})
    assert selection.checkpoint(found, "", unreported).opened == "model.safetensors"


@pytest.mark.parametrize(
    ("path", "folders", "files", "opened"),
    [
        ("vae", (), {"vae/config.json", "vae/diffusion_pytorch_model.safetensors"}, "vae"),
        ("", ("vae",), {"vae/config.json", "vae/diffusion_pytorch_model.safetensors"}, ""),
        ("transformer", (), {"transformer/config.json", INDEX, *SHARDS}, "transformer"),
    ],
)
def test_a_part_is_its_folder(repository, path, folders, files, opened):
    chosen = selection.part(repository(DIFFUSERS), path, folders, unreported)
    assert set(chosen.files) == files and chosen.opened == opened


@pytest.mark.parametrize(
    ("files", "path", "message"),
    [
        ({"config.json": {}, "pytorch_model.bin": {}}, "", "has neither a .safetensors file nor model_index"),
        (
            {"t/config.json": {}, "t/pytorch_model.bin": {}},
            "t",
            "has no weights as .safetensors; give a repo",
        ),
        ({"t/config.json": {}, "t/model.safetensors.index.json": {}}, "t", "has no weight_map"),
        (
            {
                "t/config.json": {},
                "t/model.safetensors.index.json": {"weight_map": {"a": "../x.safetensors"}},
            },
            "t",
            "must be the name of a .safetensors file",
        ),
        (
            {"t/config.json": {}, "t/model.safetensors.index.json": {"weight_map": {"a": "x.safetensors"}}},
            "t",
            "names t/x.safetensors, which is not there",
        ),
        ({"a.bin": {}}, "b", "has no .safetensors file at all"),
    ],
)
def test_a_repository_without_usable_files_is_refused(repository, files, path, message):
    with pytest.raises((CheckpointError, InputError), match=message):
        selection.checkpoint(repository(files), path, unreported)


def test_names_that_leave_the_repository_are_as_if_they_were_not_there(hub, monkeypatch, repository):
    monkeypatch.setattr(hub_server.Handler, "listed", lambda *_: ["../x", "/etc/passwd", "a\\b", "a.json"])
    assert list(repository({"a.json": {}}).files) == ["a.json"]


def test_a_config_of_a_size_that_none_has_is_not_downloaded(repository):
    found = repository(DIFFUSERS)
    huge = dataclasses.replace(found, files={**found.files, "model_index.json": 1 << 40})
    with pytest.raises(
        CheckpointError, match=r"model_index\.json: has 1100 GB, and is no config or tokenizer"
    ):
        selection.checkpoint(huge, "", unreported)
