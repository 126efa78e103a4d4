"""Memory of this process, and commands run as processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ltxrt.engines.errors import LtxrtError


def peak_memory() -> int:
    """This process's peak resident bytes; the usage that the system reports begins with the parent's."""
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        return 1024 * int(status.partition("VmHWM:")[2].split()[0])
    except (OSError, IndexError):
        pass
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def module(name: str, *arguments: object) -> list[str]:
    """The command that runs a Python module of this installation."""
    return [sys.executable, "-m", name, *map(str, arguments)]


def call(command: Sequence[str]) -> None:
    """Run `command` without showing what it prints; LtxrtError with its last line where it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise LtxrtError(f"{' '.join(command[1:])} failed: {last}")


@dataclass(frozen=True)
class Measured:
    """Wall-clock seconds and peak resident memory in bytes of a finished process."""

    seconds: float
    peak_bytes: int

    def __str__(self) -> str:
        return f"{self.seconds:.1f} s, {self.peak_bytes / 1e9:.2f} GB peak resident memory"


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
