"""What is loaded is what was exported: found by hashing, once for each state of a file."""

import json
import logging
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from ltxrt.engines.backend import load_engine
from ltxrt.engines.bundle import read_bundle, verify
from ltxrt.engines.errors import BundleError
from ltxrt.engines.storage import integrity


@pytest.fixture(autouse=True)
def clean(monkeypatch, tmp_path):
    """A process that has hashed nothing, a user without notes; files count as settled at once."""
    monkeypatch.setattr(integrity, "_memory", {})
    monkeypatch.setattr(integrity, "SETTLED", -(2**62))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def hashed(monkeypatch):
    """The names of the files that are read, as they are."""
    names, digest = [], integrity._hash

    def counted(file, kind):
        names.append(Path(f"/proc/self/fd/{file.fileno()}").readlink().name)
        return digest(file, kind)

    monkeypatch.setattr(integrity, "_hash", counted)
    return names


def roll(path):
    """Other weights of the same size, as a mix-up of files leaves them."""
    path.write_bytes(np.roll(np.fromfile(path, np.uint8), 4).tobytes())


def test_changed_weights_of_the_same_size_are_not_loaded(bundle, feed):
    load_engine(bundle, "transformer")(**feed)
    roll(bundle.root / "onnx" / "transformer.fp32.data")
    message = r"onnx/transformer\.fp32\.data has SHA-256 .* changed or damaged: copy the bundle again"
    for _again in range(2):
        with pytest.raises(BundleError, match=message):
            load_engine(read_bundle(bundle.root), "transformer")
        integrity._memory.clear()
    load_engine(bundle, "text_encoder")


def test_a_file_is_hashed_once_and_again_when_it_has_changed(bundle, hashed):
    names = ["transformer.fp32.onnx", "transformer.fp32.data"]
    load_engine(bundle, "transformer")
    assert hashed == names
    load_engine(bundle, "transformer")
    integrity._memory.clear()  # another process
    load_engine(bundle, "transformer")
    assert hashed == names
    data = bundle.root / "onnx" / names[1]
    content, times = data.read_bytes(), data.stat()
    data.write_bytes(content)
    os.utime(data, ns=(times.st_atime_ns, times.st_mtime_ns))  # as cp -p leaves it
    load_engine(bundle, "transformer")
    assert hashed == [*names, names[1]]


def test_a_copy_s_notes_count_for_nothing(bundle, tmp_path, hashed):
    load_engine(bundle, "transformer")
    copy = shutil.copytree(bundle.root, tmp_path / "copy")
    assert (copy / integrity.NOTES).is_file()
    roll(copy / "onnx" / "transformer.fp32.data")
    with pytest.raises(BundleError, match="changed or damaged"):
        load_engine(read_bundle(copy), "transformer")
    assert len(hashed) == 4


def test_a_file_that_has_just_changed_is_not_noted(bundle, hashed, monkeypatch):
    monkeypatch.setattr(integrity, "SETTLED", 2**62)
    load_engine(bundle, "transformer")
    load_engine(bundle, "transformer")
    assert len(hashed) == 4 and not (bundle.root / integrity.NOTES).exists()


def test_in_a_read_only_bundle_the_user_s_cache_is_used_and_without_one_the_memory(
    bundle, hashed, monkeypatch, tmp_path
):
    write, refused = integrity.atomic_write, [bundle.root]

    def read_only(path):
        if path.parent in refused:
            raise PermissionError(13, "Permission denied")
        return write(path)

    monkeypatch.setattr(integrity, "atomic_write", read_only)
    load_engine(bundle, "transformer")
    integrity._memory.clear()
    load_engine(bundle, "transformer")
    assert len(hashed) == 2
    (notes,) = (tmp_path / "cache" / "ltxrt").iterdir()
    assert not (bundle.root / integrity.NOTES).exists()
    notes.unlink()
    refused.append(notes.parent)
    integrity._memory.clear()
    load_engine(bundle, "transformer")
    load_engine(bundle, "transformer")
    assert len(hashed) == 4 and not notes.exists()


@pytest.mark.parametrize(
    "text",
    ["", "[" * 100_000, "[]", "null", '{"schema": 1}', '{"schema": 1, "files": {"a": 3}}',
     '{"schema": 1, "files": {"a": [[1], "x"]}}', '{"schema": 1, "files": {"a": ["11", 3]}}',
     '{"schema": 2}'],
)  # fmt: skip
def test_notes_that_cannot_be_read_count_for_nothing(bundle, hashed, text):
    (bundle.root / integrity.NOTES).write_text(text)
    load_engine(bundle, "transformer")
    integrity._memory.clear()
    load_engine(bundle, "transformer")
    assert len(hashed) == 2


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_notes_that_are_no_file_are_not_followed(bundle, hashed, tmp_path, kind):
    notes = bundle.root / integrity.NOTES
    (tmp_path / "precious").write_text("mine")
    {"link": lambda: notes.symlink_to(tmp_path / "precious"), "pipe": lambda: os.mkfifo(notes),
     "folder": notes.mkdir}[kind]()  # fmt: skip
    load_engine(bundle, "transformer")
    integrity._memory.clear()
    load_engine(bundle, "transformer")
    assert len(hashed) == 2 and (tmp_path / "precious").read_text() == "mine"


def test_notes_are_bounded(bundle, monkeypatch):
    monkeypatch.setattr(integrity, "ENTRIES", 3)
    for component in ("transformer", "text_encoder"):
        load_engine(bundle, component)
    notes = json.loads((bundle.root / integrity.NOTES).read_text())["files"]
    assert list(notes) == [
        "onnx/transformer.fp32.data", "onnx/text_encoder.fp32.onnx", "onnx/text_encoder.fp32.data"
    ]  # fmt: skip


def test_verify_hashes_whatever_the_notes_say(bundle, hashed):
    verify(bundle)
    verify(bundle)
    assert len(hashed) == 2 * 5
    load_engine(bundle, "transformer")
    assert len(hashed) == 10, "and leaves notes"


def test_large_files_are_announced(bundle, monkeypatch, caplog):
    monkeypatch.setattr(integrity, "LARGE", 1)
    with caplog.at_level(logging.INFO, logger="ltxrt"):
        load_engine(bundle, "transformer")
        load_engine(bundle, "transformer")
    graph = bundle.components["transformer"]["fp32"]
    assert [r.getMessage() for r in caplog.records] == [
        f"checking {file.path!r} ({file.bytes} B), once for this copy" for file in (graph.file, *graph.data)
    ]


def test_a_pipe_in_a_file_s_place_is_refused_and_not_waited_for(bundle):
    path = bundle.root / "onnx" / "transformer.fp32.data"
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(BundleError, match="is not a regular file"):
        load_engine(bundle, "transformer")
