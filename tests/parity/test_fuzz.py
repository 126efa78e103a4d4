"""Hostile input to every reader: some here, a hundred thousand each by `python -m ltxrt.parity.fuzz`."""

import os
import random
import signal

import pytest

from ltxrt.engines.errors import InputError
from ltxrt.parity.fuzz import media_files, mutate, runner
from ltxrt.parity.fuzz.runner import run
from ltxrt.parity.fuzz.targets import TARGETS

INPUTS = 150


@pytest.mark.parametrize("name", TARGETS)
def test_every_input_is_accepted_or_refused_in_a_sentence(name):
    counts = run(name, TARGETS[name], INPUTS)
    assert counts.failures == [] and counts.unhandled == 0
    assert counts.inputs == INPUTS and counts.refused > 0
    assert counts.accepted > 0  # what nothing passes says nothing about what follows


def test_media_files_are_read_whole_before_they_are_damaged(tmp_path):
    kinds = media_files.samples(tmp_path)
    for name, data in kinds.items():
        media_files.read(tmp_path / name)
        assert media_files.mutated(data, random.Random(1)) != data
    assert len(kinds) > 20


def test_the_runner_counts_every_way_to_end(monkeypatch):
    class Panic(BaseException):
        """As a panic of compiled code."""

    def fail(error):
        raise error

    ends = {
        1: lambda: fail(InputError("refused")),
        2: lambda: fail(ValueError("traceback")),
        3: lambda: fail(Panic("index")),
        4: lambda: os._exit(3),
        5: lambda: os.kill(os.getpid(), signal.SIGKILL),
        6: lambda: bytearray(1 << 40),
        7: lambda: fail(InputError("x" * 30_000)),
        8: lambda: fail(SystemExit(1)),
        9: lambda: all(True for _ in iter(int, 1)),
    }

    def target(_folder):
        return lambda rng: ends.get(numbers.get(rng.random()), lambda: None)()

    numbers = {random.Random(f"0:x:{i}").random(): i for i in range(12)}
    monkeypatch.setattr(runner, "SECONDS", 1)
    monkeypatch.setattr(runner, "MEMORY", 1 << 33)
    counts = run("x", target, 12)
    assert (counts.inputs, counts.accepted, counts.refused, counts.unhandled) == (12, 3, 1, 8)
    for number, what in (
        (2, "ValueError: 'traceback'"),
        (3, "Panic: 'index'"),
        (4, "exit status 3"),
        (5, "exit status -9"),
        (6, "MemoryError"),
        (7, "an error of 30000 characters"),
        (8, "SystemExit"),
        (9, "took more than 1 s of CPU"),
    ):
        (line,) = (line for line in counts.failures if line.startswith(f"input {number}: "))
        assert what in line


def test_inputs_depend_on_seed_and_number_alone():
    whole = b'{"a": [1, 2.5, "text", {"b": null}], "c": true}'
    made = [mutate.json_bytes(random.Random(f"0:x:{i}"), whole) for i in range(50)]
    assert made == [mutate.json_bytes(random.Random(f"0:x:{i}"), whole) for i in range(50)]
    assert len(set(made)) > 40


def test_a_target_that_cannot_be_set_up_is_no_result():
    with pytest.raises(Exception, match="could not be set up"):
        run("x", lambda folder: 1 / 0, 5)
