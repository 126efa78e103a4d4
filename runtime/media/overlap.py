"""Processes items in a second thread, in order, while the next ones are produced."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")


@contextmanager
def behind(work: Callable[[Item], None], waiting: int) -> Iterator[Callable[[Item], None]]:
    """A function that passes items to `work` in a second thread, and blocks while `waiting` of them are
    queued.

    When the block ends, `work` has processed all items; if the block raises, queued items are dropped. An
    exception of `work` is raised by the next call, or at the end of the block.
    """
    items: queue.Queue[tuple[Item] | None] = queue.Queue(waiting)
    failures: list[BaseException] = []
    dropped = threading.Event()

    def consume() -> None:
        while (item := items.get()) is not None:
            if failures or dropped.is_set():
                continue  # unblocks a caller that waits for room
            try:
                work(*item)
            except BaseException as error:
                failures.append(error)

    def give(item: Item) -> None:
        if failures:
            raise failures[0]
        items.put((item,))

    thread = threading.Thread(target=consume, name=f"behind {getattr(work, '__name__', 'work')}")
    thread.start()
    try:
        yield give
    except BaseException:
        dropped.set()
        raise
    finally:
        items.put(None)
        thread.join()
    if failures:
        raise failures[0]
