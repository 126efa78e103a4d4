"""The benchmark's side of its workers: start them, take turns between them, collect what they measured."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ltxrt.parity.bench import results as bench_results
from ltxrt.parity.bench.results import REFERENCE, Samples
from ltxrt.parity.bench.work import Contender, Work
from ltxrt.parity.processes import module

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
PAUSE = 0.05  # seconds between turns: threads that still spin for work of the turn before go to sleep


class WorkerError(Exception):
    """Why a contender's work could not be done: the reason, as the page says it."""


class Worker:
    """A contender's process."""

    def __init__(self, contender: Contender, threads: int) -> None:
        self.contender = contender
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  (closed with the worker)
        quiet = {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        self._process = subprocess.Popen(
            module("ltxrt.parity.bench.worker"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env={**os.environ, **quiet, **dict.fromkeys(THREAD_VARIABLES, str(threads))},
        )

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
            raise WorkerError(
                f"its process ended with exit status {self._process.wait()}{self._last_words()}"
            )
        reply: dict[str, Any] = json.loads(line)
        if "failed" in reply:
            raise WorkerError(reply["failed"])
        return reply

    def prepare(self, work: Work) -> float:
        """Load what `work` takes; the seconds that this took."""
        fields = {"contender": dataclasses.asdict(self.contender), "work": dataclasses.asdict(work)}
        return float(self.ask("prepare", **fields)["seconds"])

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()
        self._log.close()

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return f": {lines[-1][:200]}" if lines else ""


@dataclass
class Turns:
    """The samples of one contender while they are collected."""

    worker: Worker
    values: list[float] = field(default_factory=list)
    stages: list[dict[str, float]] = field(default_factory=list)
    skipped: str = ""
    difference: float | None = None

    def samples(self) -> Samples:
        if self.skipped:
            return Samples(self.worker.contender.name, skipped=self.skipped)
        values, stages = tuple(self.values), tuple(s for s in self.stages if s)
        return Samples(self.worker.contender.name, values, "", self.difference, stages)


class Arena:
    """The contenders' warm processes, and who is not here and why.

    What cannot load a model is not asked again for the same model.
    """

    def __init__(self, workers: Sequence[Worker], absent: dict[tuple[str, str], str], repeats: int) -> None:
        self._workers, self._absent, self._repeats = workers, absent, repeats

    def measure(self, work: Work) -> tuple[Samples, ...]:
        """One warm-up of each, then their timed repetitions, in turns."""
        turns = {worker.contender.name: Turns(worker) for worker in self._workers}
        for one in turns.values():
            self._prepare(one, work)
        _compare(turns)
        for name in bench_results.interleaved(list(turns), self._repeats):
            if not turns[name].skipped:
                _turn(turns[name])
        return tuple(one.samples() for one in turns.values())

    def _prepare(self, turns: Turns, work: Work) -> None:
        key = (turns.worker.contender.name, work.model)
        turns.skipped = self._absent.get(key, "")
        if turns.skipped:
            return
        try:
            turns.worker.prepare(work)
            turns.worker.ask("run")
        except WorkerError as error:
            self._absent[key] = turns.skipped = str(error)


def _turn(turns: Turns) -> None:
    time.sleep(PAUSE)
    try:
        reply = turns.worker.ask("run")
    except WorkerError as error:
        turns.skipped = str(error)
        return
    turns.values.append(float(reply["seconds"]))
    turns.stages.append(reply["stages"])


def _compare(turns: dict[str, Turns]) -> None:
    """How far each output is from the reference's: the proof that the same work is timed."""
    with tempfile.TemporaryDirectory() as folder:
        outputs: dict[str, np.ndarray] = {}
        for number, (name, one) in enumerate(turns.items()):
            path = Path(folder) / f"{number}.npy"
            if one.skipped:
                continue
            try:
                one.worker.ask("output", path=str(path))
            except WorkerError as error:
                one.skipped = str(error)
            else:
                outputs[name] = np.load(path)
        if REFERENCE not in outputs:
            return
        for name in outputs.keys() - {REFERENCE}:
            turns[name].difference = relative_l2(outputs[name], outputs[REFERENCE])


def relative_l2(ours: np.ndarray, theirs: np.ndarray) -> float | None:
    """|ours − theirs| / |theirs|, None where the shapes differ or there is nothing to compare with."""
    norm = float(np.linalg.norm(theirs))
    if ours.shape != theirs.shape or not 0 < norm < float("inf"):
        return None
    distance = float(np.linalg.norm(ours.astype(np.float64) - theirs)) / norm
    return distance if np.isfinite(distance) else None


@contextmanager
def arena(
    contenders: Sequence[Contender], threads: int, repeats: int, absent: dict[tuple[str, str], str]
) -> Iterator[Arena]:
    """A process for each contender, ended with the block."""
    with ExitStack() as stack:
        workers = []
        for contender in contenders:
            workers.append(Worker(contender, threads))
            stack.callback(workers[-1].close)
        yield Arena(workers, absent, repeats)


def fresh(contender: Contender, work: Work, threads: int, do: str = "run") -> tuple[float, dict[str, Any]]:
    """Seconds from a process's start to the end of its first run, and its answer to `do` after that."""
    start = time.perf_counter()
    worker = Worker(contender, threads)
    try:
        loading = worker.prepare(work)
        first = worker.ask("run")
        seconds = time.perf_counter() - start
        reply = first if do == "run" else worker.ask(do)
        return seconds, {**reply, "loading": loading, "first": first["seconds"]}
    finally:
        worker.close()
