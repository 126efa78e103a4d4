"""A few of the damaged media files of which `python -m ltxrt.parity.mutated_media` makes any number."""

import random

import pytest

from ltxrt.parity import mutated_media
from ltxrt.runtime import media


def test_damaged_files_end_in_frames_or_one_sentence(tmp_path):
    found = mutated_media.run(tmp_path, 260, 1)
    read = sum(number for name, number in found.items() if name.endswith(" read"))
    assert sum(found.values()) == 260 and 40 < read < 220, "some are still files, most are not"
    assert {name.rpartition(" ")[0] for name in found} == set(mutated_media.samples(tmp_path))


def test_whole_files_are_read(tmp_path):
    for name, data in mutated_media.samples(tmp_path).items():
        assert mutated_media.read(tmp_path / name) == "read", name
        assert mutated_media.mutated(data, random.Random(1)) != data


def test_what_breaks_the_rule_is_a_finding(tmp_path, monkeypatch):
    monkeypatch.setattr(media, "count", lambda *_: {}["absent"])
    with pytest.raises(KeyError):
        mutated_media.run(tmp_path, 30, 0)
    assert [path for path in tmp_path.iterdir() if path.stem == "input"], "kept, to look at"
