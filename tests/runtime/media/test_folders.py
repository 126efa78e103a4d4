"""Folders of PNG frames that are written where there is one already."""

from pathlib import Path

import numpy as np
import pytest

from ltxrt.engines.errors import InputError
from ltxrt.runtime.media.write import VideoWriter, check_output


def write(path, count):
    with VideoWriter(path, 64, 96, 25, {}) as writer:
        for shade in range(count):
            writer.write(np.full((64, 96, 3), shade, np.uint8))


def test_a_folder_of_frames_is_replaced_as_a_whole_and_no_other_folder(tmp_path):
    folder = tmp_path / "frames"
    write(folder, 5)
    write(folder, 2)
    assert sorted(p.name for p in folder.iterdir()) == ["00000.png", "00001.png", "metadata.json"]
    with pytest.raises(ValueError), VideoWriter(folder, 64, 96, 25, {}) as writer:
        writer.write(np.zeros((64, 96, 3), np.uint8))
        raise ValueError
    assert len([*folder.iterdir()]) == 3
    (folder / "notes.txt").touch()
    with pytest.raises(InputError, match="exists; give a new name or an empty folder"):
        write(folder, 5)
    (folder / "notes.txt").unlink()
    (folder / "metadata.json").unlink()
    with pytest.raises(InputError, match="exists; give a new name or an empty folder"):
        check_output(folder)
    assert [p.name for p in tmp_path.iterdir()] == ["frames"]


def test_a_folder_stays_if_the_new_one_cannot_take_its_place(tmp_path, monkeypatch):
    write(tmp_path / "frames", 5)

    def fail(self, target):
        raise OSError("the disk is gone")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="the disk is gone"):
        write(tmp_path / "frames", 2)
    assert [p.name for p in tmp_path.iterdir()] == ["frames"]
    assert len([*(tmp_path / "frames").iterdir()]) == 6
