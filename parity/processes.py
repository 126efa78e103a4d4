"""Run a command as a process of its own, with its time and its peak resident memory."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from ltxrt.engines.errors import LtxrtError


@dataclass(frozen=True)
class Measured:
    """Wall-clock seconds and peak resident memory in bytes of a finished process."""

    seconds: float
    peak_bytes: int

    def __str__(self) -> str:
        return f"{self.seconds:.1f} s, {self.peak_bytes / 1e9:.2f} GB peak resident memory"


def module(name: str, *arguments: object) -> list[str]:
    """The command that runs a Python module of this installation."""
    return [sys.executable, "-m", name, *map(str, arguments)]


def measure(command: Sequence[str]) -> Measured:
    """Run `command` with our stdout and stderr; raises LtxrtError where it fails."""
    start = time.monotonic()
    process = subprocess.Popen(command)
    try:
        _, status, usage = os.wait4(process.pid, 0)
    except BaseException:
        process.kill()
        raise
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise LtxrtError(f"{' '.join(command)} ended with exit status {process.returncode}")
    return Measured(time.monotonic() - start, usage.ru_maxrss * 1024)
