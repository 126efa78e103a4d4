"""The benchmark's side of its workers: start them, take turns between them, collect what they measured."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np

from ltxrt.parity.bench.report import REFERENCE, Samples
from ltxrt.parity.bench.work import Contender, Work
from ltxrt.parity.environment import module
from ltxrt.parity.metrics import relative_l2

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
QUIET = {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
PAUSE = 0.05  # seconds between turns: threads that still spin for the turn before go to sleep
PIECE = 8 << 20  # bytes of a file read at a time
Absent = dict[tuple[str, str], str]
T = TypeVar("T")


class WorkerError(Exception):
    """Why a contender's work could not be done: the reason, as the page says it."""


class Worker:
    """A contender's process, ended with the `with` block."""

    def __init__(self, contender: Contender, threads: int) -> None:
        self.contender = contender
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  (closed with the worker)
        self._process = subprocess.Popen(
            module("ltxrt.parity.bench.worker"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env={**os.environ, **QUIET, **dict.fromkeys(THREAD_VARIABLES, str(threads))},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._log.close()

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        """The worker's answer. Raises WorkerError for a failure, or where the process is gone."""
        assert self._process.stdin and self._process.stdout
        try:
            self._process.stdin.write(json.dumps({"do": do, **request}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            status = self._process.wait()
            raise WorkerError(f"its process ended with exit status {status}{self._last_words()}")
        reply: dict[str, Any] = json.loads(line)
        if "failed" in reply:
            raise WorkerError(reply["failed"])
        return reply

    def warm_up(self, work: Work) -> None:
        """Load what `work` takes, and run it once."""
        self.ask("prepare", contender=dataclasses.asdict(self.contender), work=dataclasses.asdict(work))
        self.ask("run")

    def run(self) -> dict[str, Any]:
        """One repetition, after a pause."""
        time.sleep(PAUSE)
        return self.ask("run")

    def output(self) -> np.ndarray:
        """What the last repetition made."""
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder) / "output.npy")
            self.ask("output", path=path)
            return np.load(path)

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return f": {lines[-1][:200]}" if lines else ""


def take_turns(
    contenders: Iterable[Contender], repeats: int, skipped: dict[str, str], turn: Callable[[Contender], T]
) -> dict[str, list[T]]:
    """What `turn` gives by contender: A B A B …, so that what changes on the machine affects all alike.

    Whoever fails is skipped from then on; `skipped` says why, by name, before and after.
    """
    found: dict[str, list[T]] = {one.name: [] for one in contenders}
    for one in (one for _ in range(repeats) for one in contenders):
        if one.name not in skipped:
            try:
                found[one.name].append(turn(one))
            except WorkerError as error:
                skipped[one.name] = str(error)
    return {name: values for name, values in found.items() if name not in skipped}


class Arena:
    """Contenders that take turns, each in a process of its own, which ends with the `with` block.

    absent: why a contender (its name) cannot run a model (its folder); whoever fails to load a model is noted
    there and is not asked for that model again.
    """

    def __init__(
        self, contenders: Sequence[Contender], threads: int, repeats: int, absent: Absent, start: Any = Worker
    ) -> None:
        self._contenders, self._threads, self._repeats = contenders, threads, repeats
        self._absent, self._start = absent, start
        self._workers: dict[str, Worker] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def warm(self, work: Work) -> tuple[Samples, ...]:
        """Seconds of `work` in processes that stay: one warm-up of each, then their timed repetitions."""
        skipped = self._skipped(work)
        take_turns(self._contenders, 1, skipped, lambda one: self._worker(one).warm_up(work))
        self._note(work, skipped)
        outputs = take_turns(self._contenders, 1, skipped, lambda one: self._worker(one).output())
        replies = take_turns(self._contenders, self._repeats, skipped, lambda one: self._worker(one).run())
        wanted = outputs.get(REFERENCE)
        measured = {
            name: Samples(
                name,
                tuple(float(reply["seconds"]) for reply in found),
                difference=_difference(outputs[name], wanted) if wanted and name != REFERENCE else None,
                stages=tuple(reply["stages"] for reply in found if reply["stages"]),
            )
            for name, found in replies.items()
        }
        return self._all(measured, skipped)

    def fresh(self, work: Work, do: str) -> tuple[Samples, ...]:
        """Seconds (`do` "run") or bytes ("peak") of `work` in a new process for every repetition.

        The first of each warms the system's file cache up and is not counted.
        """
        skipped = self._skipped(work)
        turns = take_turns(
            self._contenders, self._repeats + 1, skipped, lambda one: fresh(one, work, self._threads, do)
        )
        self._note(work, skipped)
        return self._all({name: Samples(name, tuple(found[1:])) for name, found in turns.items()}, skipped)

    def _worker(self, contender: Contender) -> Worker:
        if contender.name not in self._workers:
            worker = self._start(contender, self._threads)
            self._workers[contender.name] = self._stack.enter_context(worker)
        return self._workers[contender.name]

    def _skipped(self, work: Work) -> dict[str, str]:
        reasons = {
            one.name: one.unavailable or self._absent.get((one.name, work.model)) for one in self._contenders
        }
        return {name: reason for name, reason in reasons.items() if reason}

    def _note(self, work: Work, skipped: dict[str, str]) -> None:
        self._absent.update({(name, work.model): reason for name, reason in skipped.items()})

    def _all(self, measured: dict[str, Samples], skipped: dict[str, str]) -> tuple[Samples, ...]:
        names = [one.name for one in self._contenders]
        return tuple(measured.get(name) or Samples(name, skipped=skipped[name]) for name in names)


def _difference(ours: list[np.ndarray], theirs: list[np.ndarray]) -> float | None:
    """The relative L2 distance of the outputs; None where there is none, which JSON has no number for."""
    distance = relative_l2(ours[0], theirs[0])
    return distance if math.isfinite(distance) else None


def fresh(contender: Contender, work: Work, threads: int, do: str = "run") -> float:
    """Seconds from a process's start to the end of its first run, or its peak memory in bytes after that."""
    start = time.perf_counter()
    with Worker(contender, threads) as worker:
        worker.warm_up(work)
        return time.perf_counter() - start if do == "run" else float(worker.ask(do)["bytes"])


def read_from_disk(folder: Path) -> float:
    """Seconds that reading a folder's files takes, each from beginning to end, none from the cache."""
    drop_from_cache(folder)
    buffer = memoryview(bytearray(PIECE))
    start = time.perf_counter()
    for path in files_in(folder):
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
    return time.perf_counter() - start


def drop_from_cache(folder: Path) -> None:
    """Drop a folder's files from the system's cache; what was not written yet is written first."""
    for path in files_in(folder):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())
