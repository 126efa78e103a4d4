"""Signals to a real process, at work in compiled code, and callbacks in this one."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading

import pytest

from ltxrt.engines.storage import files
from ltxrt.engines.terminal import interrupts

# The hash takes hours, releases the interpreter, and no signal ends it.
PROGRAM = """
import hashlib, sys
from pathlib import Path
from ltxrt.engines import start
from ltxrt.engines.terminal import interrupts

def load():
    from ltxrt.engines.cli_base import ltxrt_command
    from ltxrt.engines.storage.files import temporary_folder_for, temporary_for

    @ltxrt_command("ltx-run")
    def command():
        with temporary_for(Path("v.mp4")), temporary_folder_for(Path("frames")) as folder:
            (folder / "0.png").touch()
            print("ready", flush=True)
            hashlib.pbkdf2_hmac("sha256", b"a", b"b", 2**31 - 1)

    return lambda: command([])

interrupts.GRACE = float(sys.argv[1])
start.run(load)
"""


@pytest.fixture
def process(tmp_path):
    """Starts the program with a grace, and waits until it is at work."""
    with contextlib.ExitStack() as stack:

        def begin(grace):
            child = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, str(grace)],
                cwd=tmp_path,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
            stack.callback(child.communicate)
            stack.callback(child.kill)
            assert child.stdout.readline() == "ready\n"
            assert len(list(tmp_path.iterdir())) == 2
            return child

        yield begin


@pytest.mark.parametrize(
    ("number", "status", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_what_no_signal_ends_is_ended_after_a_grace(process, tmp_path, number, status, word):
    child = process(0.1)
    child.send_signal(number)
    assert child.wait(60) == status
    assert child.stderr.read() == f"stopping…\n{word}\n"
    assert list(tmp_path.iterdir()) == []


def test_a_second_interruption_ends_it_at_once(process, tmp_path):
    child = process(100_000)
    child.send_signal(signal.SIGINT)
    assert child.stderr.readline() == "stopping…\n"
    child.send_signal(signal.SIGINT)
    assert child.wait(60) == 130
    assert child.stderr.read() == "interrupted\n"
    assert list(tmp_path.iterdir()) == []


def test_a_second_sigterm_changes_nothing(process):
    child = process(1)
    child.send_signal(signal.SIGTERM)
    assert child.stderr.readline() == "stopping…\n"
    child.send_signal(signal.SIGTERM)
    assert child.wait(60) == 143
    assert child.stderr.read() == "terminated\n"


def test_callbacks_are_called_while_the_main_thread_is_busy(capsys):
    """The main thread runs no Python between the signal and the callback that it waits for."""
    order, ended = [], threading.Event()
    with interrupts.interruptible():
        with (
            pytest.raises(KeyboardInterrupt),
            interrupts.on_interrupt(lambda: order.append("outer")),
            interrupts.on_interrupt(lambda: 1 / 0),
            interrupts.on_interrupt(lambda: order.append("inner")),
        ):
            signal.raise_signal(signal.SIGINT)
        interrupts.settle()
        with interrupts.on_interrupt(ended.set):
            assert ended.is_set()  # what begins after the interruption is ended as well
        with pytest.raises(KeyboardInterrupt):
            interrupts.check_interrupted()
    assert order in (["inner", "outer"], ["inner"], [])  # blocks may be over before the thread looks
    assert capsys.readouterr().err == "stopping…\n"
    interrupts.check_interrupted()


def test_a_callback_of_a_block_that_has_ended_is_not_called():
    called = threading.Event()
    with interrupts.interruptible():
        with interrupts.on_interrupt(called.set):
            pass
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        interrupts.settle()
    assert not called.is_set()


def test_a_folder_that_a_killed_process_left_is_swept(tmp_path):
    left, other = tmp_path / ".frames.00c0ffee", tmp_path / ".other.00c0ffee"
    for folder in (left, other):
        folder.mkdir()
        (folder / "00000.png").touch()
    deep = tmp_path / ".frames.0000000a"
    (deep / "inner").mkdir(parents=True)
    with files.temporary_folder_for(tmp_path / "frames") as first:
        with files.temporary_folder_for(tmp_path / "frames") as second:
            assert first.is_dir() and second.is_dir() and first != second
        first.rename(tmp_path / "frames")
    assert {p.name for p in tmp_path.iterdir()} == {"frames", other.name, deep.name}


def test_an_interruption_waits_for_the_end_of_a_block_that_must_not_be_left_half_way():
    """Drawing: rich writes nothing any more after an exception between two of its statements."""
    seen, called = [], threading.Event()
    with (
        pytest.raises(KeyboardInterrupt),
        interrupts.interruptible(),
        interrupts.on_interrupt(called.set),
        interrupts.deferred(),
    ):
        with interrupts.deferred():
            signal.raise_signal(signal.SIGINT)
            seen.append("inner")
        assert called.wait(60), "callbacks do not wait"
        seen.append("outer")
    assert seen == ["inner", "outer"]
    with pytest.raises(KeyboardInterrupt), interrupts.interruptible():
        signal.raise_signal(signal.SIGINT)
        seen.append("not reached")
    assert len(seen) == 2
