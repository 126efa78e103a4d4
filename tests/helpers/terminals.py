"""A command in a terminal of its own: what is on its screen, and keys that are pressed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time

import pyte

ROWS, COLUMNS = 24, 120
PATIENCE = 120  # seconds; only a test that fails waits so long


class Terminal:
    """A process in a pseudo-terminal; a context manager that ends it."""

    def __init__(self, command, cwd, **environment):
        self.screen = pyte.Screen(COLUMNS, ROWS)
        self._stream = pyte.ByteStream(self.screen)
        self.written = b""
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        self.process = subprocess.Popen(
            list(map(str, command)),
            stdin=slave, stdout=slave, stderr=slave, cwd=cwd, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            env={
                **os.environ, "TERM": "xterm-256color", "COLUMNS": str(COLUMNS), "LINES": str(ROWS),
                "OMP_NUM_THREADS": "1", **environment,
            },
        )  # fmt: skip
        os.close(slave)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.master)

    @property
    def text(self):
        """What is on the screen, without empty lines."""
        return "\n".join(line.rstrip() for line in self.screen.display if line.strip())

    def press(self, keys):
        os.write(self.master, keys)

    def wait_for(self, seen):
        """Read until `seen(text)` is true of the screen; returns its value."""
        end = time.monotonic() + PATIENCE
        while not (found := seen(self.text)):
            assert time.monotonic() < end, f"not seen: {self.text}"
            assert self._read() or self.process.poll() is None, f"ended before it was seen: {self.text}"
        return found

    def end(self):
        """Read to the end; returns the exit status."""
        end = time.monotonic() + PATIENCE
        while self._read() or self.process.poll() is None:
            assert time.monotonic() < end, self.text
        return self.process.wait()

    def _read(self):
        ready, _, _ = select.select([self.master], [], [], 0.05)
        with contextlib.suppress(OSError):  # the process has closed its end
            if ready and (data := os.read(self.master, 1 << 16)):
                self.written += data
                self._stream.feed(data)
                return True
        return False
