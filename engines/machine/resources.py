"""What this machine has: memory within its container's limit, NVIDIA GPUs, room on its disks.

GPUs are asked through NVML, which comes with the driver, so that nothing is allocated on them. Nothing here
raises: what cannot be found out is None or absent. NVML was not verified beside a GPU.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

UNLIMITED = 1 << 60  # bytes; version 1 of control groups writes a number near 2**63 where there is no limit


@dataclass(frozen=True)
class Memory:
    """Bytes of main memory. `available`: what can still be taken without swapping, page cache included.

    limit: of this process's control group (container, batch job, service), None without one; the smaller of
    what the limit and the machine leave is in `available`.
    """

    total: int
    available: int
    limit: int | None


@dataclass(frozen=True)
class Gpu:
    """A GPU as CUDA numbers it, where all GPUs are equal; bytes of its memory; sm89 for capability 8.9."""

    index: int
    name: str
    total: int
    free: int
    architecture: str
    driver: str


def memory(root: Path = Path("/")) -> Memory | None:
    """This machine's memory; `root` is where /proc and /sys are, for tests."""
    machine = _linux(root / "proc/meminfo") or _of_psutil()
    if machine is None:
        return None
    (total, available), limits = machine, list(_limits(root))
    return Memory(
        total,
        min([available, *(max(limit - used, 0) for limit, used in limits)]),
        min((limit for limit, _ in limits), default=None),
    )


def _linux(meminfo: Path) -> tuple[int, int] | None:
    """Total and available bytes, as psutil says them of Linux; None where it has to be asked."""
    try:
        lines = meminfo.read_text(encoding="ascii").splitlines()
        kilobytes = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
        total, available = kilobytes["MemTotal"] << 10, kilobytes["MemAvailable"] << 10
    except (OSError, ValueError, LookupError):
        return None
    return (total, available) if 0 < available <= total else None


def _of_psutil() -> tuple[int, int] | None:
    try:
        import psutil
    except ImportError:
        return None
    machine = psutil.virtual_memory()
    return machine.total, machine.available


def _limits(root: Path) -> Iterator[tuple[int, int]]:
    """Limit and use, in bytes, of each control group around this process; page cache is no use."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        first = controllers == "memory"
        base = root / "sys/fs/cgroup" / ("memory" if first else "")
        limit, used = (
            ("memory.limit_in_bytes", "memory.usage_in_bytes") if first else ("memory.max", "memory.current")
        )
        group = base / path.strip("/")
        for folder in (group, *(p for p in group.parents if p.is_relative_to(base))):
            most, now = _number(folder / limit), _number(folder / used)
            if most is not None and now is not None and most < UNLIMITED:
                yield most, max(now - _cached(folder / "memory.stat", "total_" if first else ""), 0)


def _number(path: Path) -> int | None:
    """The number in a file; None for "max" or no file."""
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _cached(stat: Path, prefix: str) -> int:
    """Bytes of page cache, which the system takes back when memory is short."""
    try:
        rows = dict(line.split() for line in stat.read_text(encoding="ascii").splitlines())
        return int(rows[f"{prefix}active_file"]) + int(rows[f"{prefix}inactive_file"])
    except (OSError, ValueError, KeyError):
        return 0


def disk_free(path: Path) -> int | None:
    """Bytes that can still be written beside `path`, which need not exist."""
    for folder in (path.absolute(), *path.absolute().parents):
        try:
            return shutil.disk_usage(folder).free
        except OSError:
            continue
    return None


def gpus() -> tuple[Gpu, ...]:
    """The NVIDIA GPUs that CUDA_VISIBLE_DEVICES leaves, none without a driver."""
    if not _may_have_driver():
        return ()
    try:
        import pynvml as nvml
    except ImportError:
        return ()
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return ()
    try:
        driver = str(nvml.nvmlSystemGetDriverVersion())
        handles = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
        identities = [str(nvml.nvmlDeviceGetUUID(handle)) for handle in handles]
        visible = _visible(os.environ.get("CUDA_VISIBLE_DEVICES"), identities)
        return tuple(_gpu(nvml, n, handles[i], driver) for n, i in enumerate(visible))
    except nvml.NVMLError:
        return ()
    finally:
        nvml.nvmlShutdown()


def _may_have_driver() -> bool:
    """Whether the driver's library can be loaded; unless it is certain that it cannot, true.

    On Linux NVML is this file and no other. Asking for it takes no time beside loading NVML's package.
    """
    if not sys.platform.startswith("linux"):
        return True
    try:
        ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return False
    return True


def _gpu(nvml: Any, number: int, handle: Any, driver: str) -> Gpu:
    amount = nvml.nvmlDeviceGetMemoryInfo(handle)
    major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
    name = str(nvml.nvmlDeviceGetName(handle))
    return Gpu(number, name, int(amount.total), int(amount.free), f"sm{major}{minor}", driver)


def _visible(variable: str | None, identities: list[str]) -> list[int]:
    """The GPUs that CUDA sees, in its order: numbers or beginnings of identities, to the first wrong one."""
    if variable is None:
        return list(range(len(identities)))
    found: list[int] = []
    for entry in (part.strip() for part in variable.split(",")):
        if entry.isdecimal():
            matches = [int(entry)] if int(entry) < len(identities) else []
        else:
            matches = [i for i, one in enumerate(identities) if entry and one.startswith(entry)]
        if len(matches) != 1 or matches[0] in found:
            break
        found += matches
    return found
