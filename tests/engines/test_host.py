"""Facts about this machine."""

import os

import pytest

from ltxrt.engines import host

TWO_OF_TWO = "\n\n".join(
    f"processor : {n}\nphysical id : 0\ncore id : {n % 2}\nmodel name : Abacus 3" for n in range(4)
)


def test_threads_of_one_core_are_counted_once(monkeypatch):
    monkeypatch.setattr(host.Path, "read_text", lambda *_, **__: TWO_OF_TWO + "\n")
    assert (host.physical_cores(), host.cpu_name()) == (2, "Abacus 3")


@pytest.mark.parametrize("text", ["", "processor : 0\nmodel name : Arm\n"])
def test_where_cores_are_not_told_processors_are_counted(monkeypatch, text):
    monkeypatch.setattr(host.Path, "read_text", lambda *_, **__: text)
    assert host.physical_cores() == os.cpu_count()


def test_without_a_description_processors_are_counted(monkeypatch):
    def absent(*_, **__):
        raise FileNotFoundError

    monkeypatch.setattr(host.Path, "read_text", absent)
    assert host.physical_cores() == os.cpu_count()
