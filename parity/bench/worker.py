"""A process that runs one contender's work: it reads requests, a JSON object a line, and answers each in one.

    {"do": "prepare", "contender": {…}, "work": {…}}    load it, make its inputs
    {"do": "run"}                                       one repetition: seconds, and its stages
    {"do": "output", "path": "…"}                       write what the last repetition made, as .npy
    {"do": "profile", "work": {…}, "steps": 2}          our step's seconds by operator
    {"do": "peak"}                                      the process's peak resident bytes

Each contender has a process of its own, which stays alive between its turns: both stay warm, and neither
shares a heap, a thread pool or imported packages with the other.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from ltxrt.parity.bench import work as bench_work
from ltxrt.parity.bench.work import Contender, Outcome, Runner, Work


class Server:
    """What a worker holds between requests."""

    def __init__(self) -> None:
        self._side: Any = None
        self._runner: Runner | None = None
        self._last: Outcome | None = None

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """The reply to a request; a failure is a reply too."""
        actions: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "prepare": self._prepare,
            "run": self._run,
            "output": self._output,
            "profile": _profile,
            "peak": lambda _: {"bytes": peak()},
        }
        try:
            return actions[request["do"]](request)
        except Exception as error:  # whatever a contender's packages raise
            lines = str(error).strip().splitlines() or [type(error).__name__]
            return {"failed": lines[0][:300]}

    def _prepare(self, request: dict[str, Any]) -> dict[str, Any]:
        start = time.perf_counter()
        contender, work = Contender(**request["contender"]), _work(request)
        self._last = self._runner = None
        if work.kind == "matmul":
            self._runner = matmul(contender, work)
        else:
            self._side = self._side or _side(contender)
            self._runner = self._side.prepare(work)
        return {"seconds": time.perf_counter() - start}

    def _run(self, _request: dict[str, Any]) -> dict[str, Any]:
        if self._runner is None:
            raise RuntimeError("nothing was prepared")
        start = time.perf_counter()
        self._last = self._runner()
        return {"seconds": time.perf_counter() - start, "stages": self._last.stages}

    def _output(self, request: dict[str, Any]) -> dict[str, Any]:
        if self._last is None:
            raise RuntimeError("nothing was run")
        np.save(request["path"], self._last.array)
        return {}


def _work(request: dict[str, Any]) -> Work:
    fields = request["work"]
    return Work(**{**fields, "grid": tuple(fields["grid"])})


def _profile(request: dict[str, Any]) -> dict[str, Any]:
    from ltxrt.parity.bench import ours

    return {"operators": ours.profile(_work(request), request["steps"])}


def _side(contender: Contender) -> Any:
    if contender.kind == "ltxrt":
        from ltxrt.parity.bench.ours import Ours

        return Ours(contender)
    from ltxrt.parity.bench.torch import Torch

    return Torch(contender)


def matmul(contender: Contender, work: Work) -> Runner:
    """A matrix product through a library: NumPy, torch or ONNX Runtime."""
    if contender.kind == "torch":
        from ltxrt.parity.bench import torch as bench_torch

        return bench_torch.matmul(work)
    left, right = bench_work.matrices(work)
    if contender.kind == "numpy":
        return lambda: Outcome(left @ right, {})
    return _matmul_onnxruntime(work, left, right)


def _matmul_onnxruntime(work: Work, left: np.ndarray, right: np.ndarray) -> Runner:
    """With the second factor as a constant, which ONNX Runtime may rearrange while it loads."""
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        [helper.make_node("MatMul", ["left", "right"], ["product"])],
        "product",
        [helper.make_tensor_value_info("left", TensorProto.FLOAT, left.shape)],
        [helper.make_tensor_value_info("product", TensorProto.FLOAT, (left.shape[0], right.shape[1]))],
        [numpy_helper.from_array(right, "right")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = work.threads
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return lambda: Outcome(np.asarray(session.run(None, {"left": left})[0]), {})


def peak() -> int:
    """This process's peak resident bytes; the usage that the system reports begins with the parent's."""
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        return 1024 * int(status.partition("VmHWM:")[2].split()[0])
    except (OSError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def serve(requests: TextIO, replies: TextIO) -> None:
    """Answer until the requests end."""
    server = Server()
    for line in requests:
        replies.write(json.dumps(server.answer(json.loads(line))) + "\n")
        replies.flush()


def main() -> None:
    """Replies go where stdout was; what packages print goes to stderr."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as replies:
        os.dup2(2, 1)
        serve(sys.stdin, replies)


if __name__ == "__main__":
    main()
