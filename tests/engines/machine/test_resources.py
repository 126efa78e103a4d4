import sys
import types

import psutil
import pytest

from ltxrt.engines.machine import resources

GIB = 1 << 30


@pytest.fixture
def root(tmp_path):
    """A function that writes /proc and /sys of a machine: its control groups, and a file of each folder."""

    def make(groups, files):
        (tmp_path / "proc/self").mkdir(parents=True)
        (tmp_path / "proc/self/cgroup").write_text(groups)
        for name, text in files.items():
            path = tmp_path / "sys/fs/cgroup" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return make


CACHE = "anon 1\ninactive_file 100\nactive_file 11\n"


def test_without_a_limit_the_memory_is_the_machine_s(root):
    found = resources.memory(root("0::/\n", {}))
    assert found.total == psutil.virtual_memory().total and found.limit is None
    assert 0 < found.available <= found.total


@pytest.mark.parametrize("available", ["6", "0", "11", "none"])
def test_psutil_is_asked_where_the_file_it_reads_says_too_little(root, available, monkeypatch):
    machine = root("0::/\n", {})
    (machine / "proc/meminfo").write_text(f"MemTotal:  10 kB\nMemFree: 1 kB\nMemAvailable: {available} kB\n")
    monkeypatch.setattr(psutil, "virtual_memory", lambda: types.SimpleNamespace(total=7, available=5))
    found = resources.memory(machine)
    assert (found.total, found.available) == ((10 << 10, 6 << 10) if available == "6" else (7, 5))


def test_without_psutil_the_memory_is_unknown_where_there_is_no_proc(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "psutil", None)
    assert resources.memory(tmp_path) is None


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_the_memory_is_the_same_as_psutil_s():
    found, other = resources.memory(), psutil.virtual_memory()
    assert found.total == other.total
    assert abs(found.available - other.available) < found.total / 4 or found.limit is not None


@pytest.mark.parametrize(
    ("groups", "files", "limit", "left"),
    [
        ("0::/box\n", {"box/memory.max": "1000", "box/memory.current": "400", "box/memory.stat": CACHE},
         1000, 711),
        ("0::/box/in\n", {"box/memory.max": "900", "box/memory.current": "100", "box/in/memory.max": "max",
                          "box/in/memory.current": "50"}, 900, 800),
        ("0::/elsewhere\n", {"memory.max": "500\n", "memory.current": "600\n"}, 500, 0),
        ("4:memory:/box\n0::/\n", {"memory/box/memory.limit_in_bytes": "800",
                                   "memory/box/memory.usage_in_bytes": "300",
                                   "memory/memory.limit_in_bytes": str(2**63 - 4096),
                                   "memory/memory.usage_in_bytes": "5"}, 800, 500),
        ("4:cpu:/box\n", {"memory.max": "7", "memory.current": "1"}, None, None),
    ],
)  # fmt: skip
def test_a_control_group_limits_what_is_available(root, groups, files, limit, left):
    found = resources.memory(root(groups, files))
    assert found.limit == limit
    assert left is None or found.available == left


def test_a_machine_without_these_files_has_no_limit(tmp_path):
    assert resources.memory(tmp_path).limit is None


def test_room_on_the_disk_is_that_of_the_nearest_folder_there_is(tmp_path):
    assert resources.disk_free(tmp_path / "not" / "yet") > 0


class NVMLError(Exception):
    pass


def driver(count=3):
    """A stand-in for NVML with `count` GPUs; the real one needs a driver."""
    return types.SimpleNamespace(
        NVMLError=NVMLError,
        nvmlInit=lambda: None,
        nvmlShutdown=lambda: None,
        nvmlSystemGetDriverVersion=lambda: "580.65",
        nvmlDeviceGetCount=lambda: count,
        nvmlDeviceGetHandleByIndex=lambda i: i,
        nvmlDeviceGetUUID=lambda i: f"GPU-{i}abc",
        nvmlDeviceGetMemoryInfo=lambda i: types.SimpleNamespace(total=(i + 1) * 8 * GIB, free=GIB),
        nvmlDeviceGetCudaComputeCapability=lambda i: (8, 9),
        nvmlDeviceGetName=lambda i: f"GPU {i}",
    )


@pytest.mark.parametrize(
    ("variable", "names"),
    [
        (None, ["GPU 0", "GPU 1", "GPU 2"]),
        ("2,0", ["GPU 2", "GPU 0"]),
        ("GPU-1", ["GPU 1"]),
        ("1,7,0", ["GPU 1"]),
        ("0,0", ["GPU 0"]),
        ("", []),
        ("-1", []),
    ],
)
def test_gpus_are_those_that_cuda_sees_in_its_order(monkeypatch, variable, names):
    monkeypatch.setitem(sys.modules, "pynvml", driver())
    monkeypatch.setattr(resources, "_may_have_driver", lambda: True)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if variable is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", variable)
    found = resources.gpus()
    assert [gpu.name for gpu in found] == names
    assert [gpu.index for gpu in found] == list(range(len(names)))
    assert all((gpu.architecture, gpu.driver, gpu.free) == ("sm89", "580.65", GIB) for gpu in found)


def test_the_stand_in_has_nothing_that_nvml_lacks():
    import pynvml

    assert [name for name in vars(driver()) if not hasattr(pynvml, name)] == []


def test_without_a_driver_there_is_no_gpu(monkeypatch):
    monkeypatch.setattr(resources, "_may_have_driver", lambda: True)

    def fail():
        raise NVMLError

    monkeypatch.setitem(sys.modules, "pynvml", types.SimpleNamespace(NVMLError=NVMLError, nvmlInit=fail))
    assert resources.gpus() == ()
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert resources.gpus() == ()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere NVML itself is asked")
def test_nvml_is_not_loaded_where_the_driver_s_library_is_not_there(monkeypatch):
    asked = []

    def absent(name):
        asked.append(name)
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(resources.ctypes, "CDLL", absent)
    monkeypatch.setitem(sys.modules, "pynvml", driver())
    assert (resources.gpus(), asked) == ((), ["libnvidia-ml.so.1"])
    monkeypatch.setattr(resources.ctypes, "CDLL", lambda name: None)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert len(resources.gpus()) == 3
