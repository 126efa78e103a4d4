"""Frames are encoded while the next ones are decoded."""

import threading

import numpy as np
import pytest

from ltxrt.runtime.media.overlap import behind
from ltxrt.runtime.media.write import VideoWriter


def test_items_are_worked_on_in_order_in_another_thread():
    seen, threads = [], set()

    def work(item):
        threads.add(threading.get_ident())
        seen.append(item)

    with behind(work, 2) as give:
        for item in range(50):
            give(item)
    assert seen == list(range(50)) and threads.isdisjoint({threading.get_ident()}) and len(threads) == 1


def test_the_next_item_is_made_while_one_is_worked_on():
    """Each waits for the other: in one thread this would never end."""
    made, started = threading.Event(), threading.Event()

    def work(item):
        started.set()
        assert item or made.wait(60)

    with behind(work, 1) as give:
        give(0)
        assert started.wait(60)
        made.set()
        give(1)


def test_no_more_items_wait_than_allowed():
    gate, most, handed = threading.Event(), [], []

    def work(item):
        gate.wait(60)
        most.append(len(handed) - item)

    def make(give):
        for item in range(10):
            give(item)
            handed.append(item)

    with behind(work, 3) as give:
        maker = threading.Thread(target=make, args=(give,))
        maker.start()
        gate.set()
        maker.join()
    assert max(most) <= 5, "three wait, one is worked on, one is handed over"


@pytest.mark.parametrize("count", [1, 10])
def test_what_the_work_raises_reaches_the_caller(count):
    def work(item):
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"), behind(work, 2) as give:
        for item in range(count):
            give(item)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_after_an_exception_what_waits_is_dropped_and_the_thread_ends(error):
    started, gate, seen = threading.Event(), threading.Event(), []
    before = threading.active_count()

    def work(item):
        started.set()
        gate.wait(60)
        seen.append(item)

    def raising():
        """Raise while the first item is worked on and the others wait."""
        started.wait(60)
        threading.Thread(target=gate.set).start()
        raise error

    with pytest.raises(error), behind(work, 5) as give:
        for item in range(5):
            give(item)
        raising()
    assert threading.active_count() == before and seen[0] == 0


def test_the_video_is_the_same_byte_for_byte(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (30, 64, 64, 3), np.uint8)
    paths = tmp_path / "plain.mp4", tmp_path / "behind.mp4"
    with VideoWriter(paths[0], 64, 64, 24, {}) as writer:
        for frame in frames:
            writer.write(frame)
    with VideoWriter(paths[1], 64, 64, 24, {}) as writer, behind(writer.write, 4) as write:
        for frame in frames:
            write(frame)
    assert writer.count == 30 and paths[0].read_bytes() == paths[1].read_bytes()
