"""Runs a target over many inputs in a process of its own, and counts how each of them ended.

An input must be accepted, or refused with an ltxrt error. Everything else is unhandled: another exception (a
panic of Rust code is a BaseException), an empty or overlong message, an input that takes too long or too much
memory, and the end of the process, which is replaced and goes on after the input that ended it.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sys
import tempfile
from collections.abc import Callable
from contextlib import redirect_stderr, suppress
from dataclasses import dataclass, field
from io import StringIO
from multiprocessing.connection import Connection
from multiprocessing.sharedctypes import SynchronizedArray
from pathlib import Path
from typing import Any

from ltxrt.engines.errors import LtxrtError

SECONDS = 10  # of CPU for one input; the slowest that is right takes under one
MEMORY = 1 << 30  # bytes of address space beyond what the process has at its start
MESSAGE = 20_000  # characters of an error, which may repeat an input once; a command prints far fewer
WARM = 30
SHOWN = 20  # unhandled inputs that are described

Attempt = Callable[[random.Random], None]
Target = Callable[[Path], Attempt]  # makes what it needs in an empty folder; an attempt is one input


class TooLong(BaseException):
    """One input has taken SECONDS of CPU."""


@dataclass
class Counts:
    """How a target's inputs ended; `failures` describe the first of those unhandled, by input number."""

    target: str
    seed: int
    accepted: int = 0
    refused: int = 0
    unhandled: int = 0
    failures: list[str] = field(default_factory=list)

    @property
    def inputs(self) -> int:
        return self.accepted + self.refused + self.unhandled

    def fail(self, number: int, what: str) -> None:
        self.unhandled += 1
        if len(self.failures) < SHOWN:
            self.failures.append(f"input {number}: {' '.join(what.split())[:300]}")


def run(name: str, target: Target, inputs: int, seed: int = 0, first: int = 0) -> Counts:
    """Try inputs `first` to `first + inputs - 1` of `seed`; each depends on its number alone."""
    counts, context = Counts(name, seed), multiprocessing.get_context("fork")
    number, end = first, first + inputs
    while number < end:
        state = context.Array("q", 4)  # the number in work, accepted, refused, whether it has begun
        state[0] = number
        ours, theirs = context.Pipe(duplex=False)
        child = context.Process(target=_child, args=(name, target, seed, number, end, state, theirs))
        child.start()
        theirs.close()
        for at, what in _received(ours):
            counts.fail(at, what)
        child.join()
        counts.accepted += state[1]
        counts.refused += state[2]
        number = state[0]
        if not state[3]:
            raise LtxrtError(f"the target {name} could not be set up; its process says why above")
        if number < end:
            counts.fail(number, f"ended the process (exit status {child.exitcode})")
            number += 1
    return counts


def _received(pipe: Connection) -> list[tuple[int, str]]:
    messages = []
    try:
        while True:
            messages.append(pipe.recv())
    except EOFError:
        return messages


def _child(
    name: str,
    target: Target,
    seed: int,
    number: int,
    end: int,
    state: SynchronizedArray[int],
    pipe: Connection,
) -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    signal.signal(signal.SIGVTALRM, _too_long)
    with tempfile.TemporaryDirectory(prefix="ltxrt-fuzz-") as folder, redirect_stderr(StringIO()):
        attempt = target(Path(folder))
        for i in range(WARM):  # imports and caches are no input's memory
            with suppress(LtxrtError):
                attempt(random.Random(i))
        _limit_memory()
        state[3] = 1
        while number < end:
            state[0] = number
            problem = _one(attempt, random.Random(f"{seed}:{name}:{number}"), state)
            if problem:
                pipe.send((number, problem))
            number += 1
            state[0] = number


def _one(attempt: Attempt, rng: random.Random, state: SynchronizedArray[int]) -> str:
    """Try one input and count it; what is wrong with how it ended, "" if nothing."""
    import resource

    cpu = resource.getrusage(resource.RUSAGE_SELF)
    used = int(cpu.ru_utime + cpu.ru_stime)
    # Python runs no handler while compiled code works: the kernel ends the process then.
    resource.setrlimit(resource.RLIMIT_CPU, (used + 3 * SECONDS, resource.RLIM_INFINITY))
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    try:
        attempt(rng)
    except LtxrtError as error:
        if problem := _unreadable(str(error)):
            return problem
        state[2] += 1
    except TooLong:
        return f"took more than {SECONDS} s of CPU"
    except BaseException as error:
        return f"{type(error).__name__}: {str(error)!a}"
    else:
        state[1] += 1
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    return ""


def _unreadable(message: str) -> str:
    if not message or len(message) > MESSAGE:
        return f"an error of {len(message)} characters: {message[:100]!a}"
    return ""


def _limit_memory() -> None:
    import resource

    pages = int(Path("/proc/self/statm").read_text().split()[0]) if sys.platform == "linux" else 0
    limit = pages * resource.getpagesize() + MEMORY
    if pages:
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))


def _too_long(_signal: int, _frame: Any) -> None:
    raise TooLong
