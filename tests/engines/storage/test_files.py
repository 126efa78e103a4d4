from __future__ import annotations

import hashlib
import os
import re
import stat
import threading
import time

import pytest

from ltxrt.engines.errors import BundleError, InputError
from ltxrt.engines.storage import files
from ltxrt.engines.storage.files import atomic_write, inside, make_folder, read_small, sha256


def test_the_file_appears_whole(tmp_path):
    target = tmp_path / "clip.mp4"
    with atomic_write(target) as temporary:
        assert temporary.parent == tmp_path and temporary.suffix == ".mp4"
        temporary.write_bytes(b"new")
        assert not target.exists()
    assert target.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, failure):
    target = tmp_path / "bundle.json"
    target.write_bytes(b"old")
    with pytest.raises(failure), atomic_write(target) as temporary:
        temporary.write_bytes(b"half")
        raise failure
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_others_may_read_the_file(tmp_path):
    plain = tmp_path / "plain"
    plain.touch()
    with atomic_write(tmp_path / "atomic"):
        pass
    assert stat.S_IMODE((tmp_path / "atomic").stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_a_folder_or_a_pipe_is_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for target in (tmp_path, pipe):
        with pytest.raises(InputError, match="is not a regular file"), atomic_write(target):
            pass
    assert pipe.is_fifo()


def test_sha256(tmp_path):
    (tmp_path / "f").write_bytes(b"abc")
    assert sha256(tmp_path / "f") == hashlib.sha256(b"abc").hexdigest()


@pytest.mark.parametrize("relative", ["a", "a/b.onnx", "./a", "a..b/c"])
def test_paths_inside(tmp_path, relative):
    assert inside(tmp_path, relative) == tmp_path / relative


@pytest.mark.parametrize(
    "relative",
    ["", "../x", "a/../../x", "/etc/passwd", "..", "a\\..\\..\\x", "C:\\x", "C:x", "\\\\host\\x", "a\0b"],
)
def test_paths_outside_are_refused(tmp_path, relative):
    with pytest.raises(BundleError, match=re.escape(repr(relative)) + " leaves the folder"):
        inside(tmp_path, relative)


def test_links_that_leave_are_refused_and_links_that_stay_are_not(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "secret").write_text("s")
    (root / "own").write_text("o")
    (root / "out").symlink_to(tmp_path / "secret")
    (root / "up").symlink_to(tmp_path)
    (root / "stay").symlink_to("own")
    for relative in ("out", "up/secret"):
        with pytest.raises(BundleError, match="through a symbolic link; copy the file"):
            inside(root, relative)
    assert inside(root, "stay").read_text() == "o"


def test_a_loop_of_links_is_refused(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(BundleError, match="cannot be resolved"):
        inside(tmp_path, "a")


def test_read_ahead_reads_every_file_and_leaves_no_thread(tmp_path, monkeypatch):
    """Files without a reader in the way are read to their ends, an unreadable one is passed over."""
    monkeypatch.setattr(files, "_PIECE", 1000)
    paths = [tmp_path / "a", tmp_path / "missing", tmp_path / "b"]
    for path in (paths[0], paths[2]):
        path.write_bytes(b"x" * 2500)
    asked = []
    monkeypatch.setattr(files, "_free", lambda: asked.append(1) or True)
    with files.read_ahead(paths):
        while sum(asked) < 8:  # three pieces and the end, twice
            time.sleep(0.001)
    assert not any(t.name == "read ahead" for t in threading.enumerate())
    asked.clear()
    monkeypatch.setattr(files, "_free", lambda: asked.append(1) and False)
    with files.read_ahead(paths):
        pass
    assert len(asked) <= 2, "no piece was read where memory is short"


def test_what_a_killed_process_left_is_swept_by_the_next_writer_of_the_file(tmp_path):
    """Only names of this very file, only what nobody holds, only regular files."""
    left = tmp_path / ".clip.00c0ffee.mp4"
    others = [
        ".clip.00c0ffee.webm",
        ".clips.00c0ffee.mp4",
        ".clip.00C0FFEE.mp4",
        "clip.00c0ffee.mp4",
        ".clip.mp4",
    ]
    for name in (left.name, *others):
        (tmp_path / name).write_bytes(b"half")
    (tmp_path / "precious").write_bytes(b"mine")
    (tmp_path / ".clip.0000000a.mp4").symlink_to("precious")
    (tmp_path / ".clip.0000000b.mp4").mkdir()
    os.mkfifo(tmp_path / ".clip.0000000c.mp4")
    before = {p.name for p in tmp_path.iterdir()} - {left.name}
    with atomic_write(tmp_path / "clip.mp4") as first:
        first.write_bytes(b"whole")
        with atomic_write(tmp_path / "clip.mp4") as second:
            second.write_bytes(b"other")
        assert first.read_bytes() == b"whole", "a writer that is at work is left alone"
    assert {p.name for p in tmp_path.iterdir()} == before | {"clip.mp4"}
    assert (tmp_path / "clip.mp4").read_bytes() == b"whole"


def test_a_temporary_that_is_swept_before_it_is_locked_is_made_again(tmp_path, monkeypatch):
    made, open_ = [], files.locks.descriptor_of

    def swept(path, flags):
        descriptor = open_(path, flags)
        if flags & os.O_CREAT:
            made.append(path)
            if len(made) == 1:
                path.unlink()
        return descriptor

    monkeypatch.setattr(files.locks, "descriptor_of", swept)
    with atomic_write(tmp_path / "a") as temporary:
        temporary.write_bytes(b"x")
    assert len(made) == 2 and (tmp_path / "a").read_bytes() == b"x"


@pytest.mark.parametrize("parts", [("a",), ("a", "b"), ("a", "b", "c")])
@pytest.mark.parametrize("target", ["outside", "root/inside", "nowhere"])
def test_a_folder_for_writing_is_made_and_never_reached_through_a_link(tmp_path, parts, target):
    root = tmp_path / "root"
    for folder in ("root/inside", "outside"):
        (tmp_path / folder).mkdir(parents=True)
    assert make_folder(root, "x", "y").is_dir() and make_folder(root, "x", "y") == root / "x" / "y"
    *parents, last = parts
    make_folder(root, *parents).joinpath(last).symlink_to(tmp_path / target)
    with pytest.raises(BundleError, match=f"{last} is a symbolic link; .* put a folder there"):
        make_folder(root, *parts, "d")
    (root / "file").touch()
    with pytest.raises(BundleError, match="file is not a folder"):
        make_folder(root, "file")
    for folder in ("root/inside", "outside"):
        assert list((tmp_path / folder).iterdir()) == []
    (tmp_path / "link").symlink_to(root)
    assert make_folder(tmp_path / "link", "z").is_dir(), "the bundle itself may be named by a link"


def test_small_files_are_read_and_what_might_not_end_is_not(tmp_path):
    (tmp_path / "f").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("f")
    os.mkfifo(tmp_path / "pipe")
    assert read_small(tmp_path / "f", 2) == b"ab"
    for path in (tmp_path / "link", tmp_path / "pipe", tmp_path, tmp_path / "gone"):
        with pytest.raises(OSError):
            read_small(path, 2)


def test_a_name_that_no_file_can_have_is_refused(tmp_path):
    assert inside(tmp_path, "a/" + "9" * 255)
    with pytest.raises(BundleError, match="has a name that no file can have"):
        inside(tmp_path, "a/" + "9" * 256)


def test_files_that_belong_together_are_removed_with_a_failure_or_a_hard_exit(tmp_path):
    paths = [tmp_path / name for name in "abc"]

    def write():
        for path in paths[:2]:
            path.touch()

    with files.removed_on_failure(*paths):
        write()
    assert [path.name for path in tmp_path.iterdir()] != []
    with pytest.raises(KeyboardInterrupt), files.removed_on_failure(*paths):
        write()
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    with files.removed_on_failure(*paths):
        write()
        files.discard_all()
        assert list(tmp_path.iterdir()) == []
    write()
    files.discard_all()
    assert len(list(tmp_path.iterdir())) == 2, "a block that has succeeded is over"
