"""The ONNX Runtime backends, on the CPU and on CUDA. Nothing is built: graphs are optimised while loading.

Bound inputs are copied to the device once; a call only copies the others and the outputs. External data is
mapped into memory by ONNX Runtime. Since 1.24 it refuses locations outside the graph's folder (absolute,
through `..` or a link) and addresses in memory; older releases are therefore refused here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ltxrt.engines.backend import Options, Package
from ltxrt.engines.contract import Contract
from ltxrt.engines.errors import EngineError, InputError, InterruptedRunError, MissingPackageError, setting
from ltxrt.engines.host import cpu_name

# The CPU provider has fp32 kernels, runs fp16 graphs between casts, and has few kernels for bf16.
PRECISIONS = {
    "onnxruntime": ("fp32", "fp16", "fp8-fp16"),
    "onnxruntime_cuda": ("fp16", "bf16", "fp32", "fp8-fp16"),
}
PACKAGES = {
    "onnxruntime": (Package("onnxruntime", "runs graphs on the CPU", "cpu"),),
    "onnxruntime_cuda": (Package("onnxruntime-gpu", "runs graphs on NVIDIA GPUs", "cuda"),),
}
DEVICES = {"onnxruntime": "cpu", "onnxruntime_cuda": "cuda"}
CUDA: dict[str, str] = {
    "arena_extend_strategy": "kSameAsRequested",  # doubling would allocate up to twice what a video needs
    "use_tf32": "0",  # fp32 parts of a graph are there for their precision
    "cudnn_conv_algo_search": "HEURISTIC",  # the default tries all, which makes the first decode slow
}
# Before 1.24 it reads weights outside the bundle; before 1.25 CUDA lacks Attention of opset 23.
OLDEST = {"onnxruntime": (1, 24), "onnxruntime_cuda": (1, 25)}
# Prepacking rearranges every matrix while loading. For the 2B transformer on 2 cores loading took 18 to 27 s
# with it and 0.3 s without; it saved 1 s of a step of 8 to 16 s (docs/full-size.md), so it pays off from this
# number of calls on.
PREPACK_FROM = 25
MANY_CALLS = {"onnxruntime": PREPACK_FROM}  # CUDA's kernels do not read what is prepacked

_TYPES = {"f32": "tensor(float)", "i64": "tensor(int64)", "bool": "tensor(bool)"}
_OUT_OF_MEMORY = ("bad_alloc", "bad allocation", "failed to allocate memory", "out of memory")


class OrtSession:
    """A graph in ONNX Runtime; handles are OrtValues on `device`."""

    def __init__(self, session: Any, contract: Contract, device: str, index: int = 0) -> None:
        import onnxruntime

        self._session = session
        self._component = contract.component
        self._outputs = [t.name for t in contract.outputs]
        self._device = (device, index)
        self._run_options = onnxruntime.RunOptions()  # shared by all runs: `terminate` ends those in progress
        self._value = onnxruntime.OrtValue.ortvalue_from_numpy  # on the CPU it would share the array's memory

    def upload(self, name: str, array: np.ndarray) -> Any:
        return self._value(array.copy(), *self._device)

    def run(self, feeds: Mapping[str, Any]) -> dict[str, np.ndarray]:
        if self._session is None:
            raise EngineError(f"{self._component}: the engine is closed")
        try:
            binding = self._session.io_binding()
            for name, value in feeds.items():
                on_device = self._value(value, *self._device) if isinstance(value, np.ndarray) else value
                binding.bind_ortvalue_input(name, on_device)
            for name in self._outputs:
                binding.bind_output(name, "cpu")
            self._session.run_with_iobinding(binding, self._run_options)
            values = zip(self._outputs, binding.get_outputs(), strict=True)  # in the order of binding
            return {name: value.numpy() for name, value in values}
        except Exception as error:  # ONNX Runtime's exceptions have no common base
            if self._run_options.terminate:
                raise InterruptedRunError(self._component) from error
            raise _failure(self._component, "run", error) from error

    def interrupt(self) -> None:
        self._run_options.terminate = True

    def resume(self) -> None:
        self._run_options.terminate = False

    def close(self) -> None:
        self._session = None


def available(backend: str, device: int = 0) -> str:
    """What `backend` runs on. Only loading a graph shows whether there really is a CUDA GPU."""
    providers(backend, device)
    return f"CPU {cpu_name()}" if DEVICES[backend] == "cpu" else f"GPU {device}, through CUDA"


def providers(backend: str, index: int = 0) -> list[Any]:
    """The providers that run `backend`'s graphs, on the GPU `index`; raises if it cannot run here."""
    device = DEVICES[backend]
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise MissingPackageError(error.name or "onnxruntime", device) from error
    except ImportError as error:
        raise EngineError(
            f"onnxruntime is installed but does not load ({error}); remove it and install it again with: "
            f"pip install 'ltxrt[{device}]'"
        ) from error
    _refuse_old(onnxruntime.__version__, backend)
    return _providers(onnxruntime, device, index)


def load(path: Path, options: Options) -> OrtSession:
    """Load the graph at `path`; its inputs and outputs must be the contract's."""
    device = DEVICES[options.backend]
    if options.device < 0 or (options.device and device == "cpu"):
        raise InputError(
            f"{setting('device')} {options.device}: must be the number of a GPU, from 0, for a backend "
            "that runs on one"
        )
    chosen = providers(options.backend, options.device)
    import onnxruntime

    component = options.contract.component
    _refuse_other_encodings(path)
    try:
        session = onnxruntime.InferenceSession(
            str(path), session_options(options.contract, options.threads, options.calls), providers=chosen
        )
    except Exception as error:  # as above
        raise _failure(component, "load", error) from error
    if device == "cuda" and "CUDAExecutionProvider" not in session.get_providers():
        raise EngineError(
            f"{component}: onnxruntime found no GPU that it can use and fell back to the CPU; look at "
            f"ltx-run doctor, or choose {setting('backend')} onnxruntime"
        )
    _check_signature(session, options.contract)
    return OrtSession(session, options.contract, device, options.device)


def _refuse_other_encodings(path: Path) -> None:
    """ONNX Runtime accepts only UTF-8 paths, and reports others as invalid arguments."""
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(f"{path}: onnxruntime opens no path that is not UTF-8; rename the folder") from error


def _providers(onnxruntime: Any, device: str, index: int) -> list[Any]:
    """Providers in order of preference; with a GPU, the CPU only computes shapes and indices."""
    if device == "cpu":
        return ["CPUExecutionProvider"]
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise MissingPackageError("onnxruntime-gpu", "cuda")
    onnxruntime.preload_dlls()
    return [("CUDAExecutionProvider", {**CUDA, "device_id": str(index)}), "CPUExecutionProvider"]


def session_options(contract: Contract, threads: int | None, calls: int) -> Any:
    """The options of a session that is called about so many times."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0  # 0: one per physical core
    # The arena grows by doubling and never shrinks: a decode within 1 GiB of activations took 2.1 GiB
    # with it and 1.2 GiB without (parity/proofs/tiled_memory.py). Where tiles bound memory it is left out.
    options.enable_cpu_mem_arena = not contract.tiles
    options.enable_mem_pattern = False  # they plan one block per shape: 1.5 times the memory, and no faster
    options.log_severity_level = 4  # errors are exceptions; level 3 would print them again
    # Threads spin for work inside a run, but not between runs, when others need the cores.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.add_session_config_entry("session.disable_prepacking", str(int(calls < PREPACK_FROM)))
    return options


def _refuse_old(version: str, backend: str) -> None:
    major, minor = (int(part) for part in version.split(".")[:2])
    if (major, minor) < OLDEST[backend]:
        oldest = ".".join(map(str, OLDEST[backend]))
        lacks = (
            "reads weights outside the bundle" if (major, minor) < OLDEST["onnxruntime"] else "lacks kernels"
        )
        raise EngineError(
            f"onnxruntime {version} is too old for {backend}: it {lacks}; install {oldest} or later: "
            f"pip install --upgrade 'ltxrt[{DEVICES[backend]}]'"
        )


def _check_signature(session: Any, contract: Contract) -> None:
    sides = ((session.get_inputs(), contract.inputs), (session.get_outputs(), contract.outputs))
    for found, wanted in sides:
        there = {(a.name, a.type) for a in found}
        if there != {(t.name, _TYPES[t.dtype]) for t in wanted}:
            got = ", ".join(f"{n} {t}" for n, t in sorted(there))
            raise EngineError(
                f"{contract.component}: the graph has {got} where the contract says "
                f"{', '.join(map(str, wanted))}; export the component again"
            )


def _failure(component: str, act: str, error: Exception) -> EngineError:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    if isinstance(error, MemoryError) or any(sign in str(error).lower() for sign in _OUT_OF_MEMORY):
        hint = "; not enough memory: use fewer frames, a smaller size or a smaller precision"
    else:
        hint = ""
    return EngineError(f"{component}: onnxruntime could not {act} the graph: {lines[0][:300]}{hint}")
