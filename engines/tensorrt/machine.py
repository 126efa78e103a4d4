"""The stream, scratch memory, runtime and lock that the TensorRT engines of a process share on one GPU."""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ltxrt.engines.tensorrt import build as trt
from ltxrt.engines.tensorrt import log as trt_log
from ltxrt.engines.tensorrt.cuda import CudaDevice, DeviceBuffer


class Machine:
    """One per backend and GPU. Engines run one after another: every user takes a turn first."""

    _shared: dict[tuple[str, int], Machine] = {}  # noqa: RUF012  # one table per process
    _making = threading.Lock()

    def __init__(self, backend: str, device: Any, package: Any) -> None:
        self.backend, self.device, self.package = backend, device, package
        self.scratch = DeviceBuffer(device)
        self.log = trt_log.collecting(package)
        self.runtime = package.Runtime(self.log)
        self._lock = threading.RLock()
        self._taken = False
        self._users: weakref.WeakSet[object] = weakref.WeakSet()
        self._dropped: deque[DeviceBuffer] = deque()

    @classmethod
    def of(cls, backend: str, index: int = 0) -> Machine:
        with cls._making:
            if (backend, index) not in cls._shared:
                package = trt.package(backend)
                device = CudaDevice(trt.flavour_of(backend).extra, index)
                cls._shared[backend, index] = cls(backend, device, package)
            return cls._shared[backend, index]

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Exclusive use of the GPU, in any thread. Turns do not nest."""
        with self._lock:
            self._taken = True
            try:
                self.device.use()
                self._free_dropped()
                yield
            finally:
                self._taken = False

    def join(self, user: object) -> None:
        """Register `user`, which runs engines here until it leaves or is garbage-collected."""
        self._users.add(user)

    def leave(self, user: object) -> None:
        """Unregister `user`; the last one frees the scratch memory, of which the next may need less."""
        self._users.discard(user)
        if not self._users:
            self.scratch.release()

    def drop(self, memory: DeviceBuffer) -> None:
        """Free `memory` at once, or at the next turn if one is in progress.

        Finalisers call this from any thread at any time; they must not wait for a turn to end, nor free
        memory while a graph is captured.
        """
        self._dropped.append(memory)
        if self._lock.acquire(blocking=False):
            try:
                if not self._taken:
                    self.device.use()
                    self._free_dropped()
            finally:
                self._lock.release()

    def _free_dropped(self) -> None:
        while self._dropped:
            self._dropped.popleft().release()
