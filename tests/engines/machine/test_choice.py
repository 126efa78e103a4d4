"""The choice among stand-ins of backends, of which two run on a GPU that is not there."""

import dataclasses
import sys
import types

import pytest

from ltxrt.engines.bundle import read_bundle
from ltxrt.engines.errors import EngineError, InputError
from ltxrt.engines.machine import choice, resources
from ltxrt.engines.machine.names import BACKENDS, NEEDS_GPU
from ltxrt.runtime import EnginePool

GPU = resources.Gpu(0, "GPU", 1 << 34, 1 << 34, "sm89", "580.65")


@pytest.fixture(scope="module")
def bundle(tiny_bundle):
    return read_bundle(tiny_bundle("0.9.5"))


@pytest.fixture
def machine(monkeypatch):
    """A function that makes a machine with a GPU or without, where `graph` and `built` are backends on it.

    `built` has engines of the components given; `missing` are backends whose package is absent.
    """

    def make(gpu=True, engines=(), missing=(), precisions=("fp32",)):
        def available(backend, device=0):
            if backend in missing:
                raise EngineError(f"{backend} is not installed")
            return f"GPU {device}"

        def locate(bundle, backend, component, precision, device=0):
            if component not in engines:
                raise InputError(f"no engine of {component}")
            return (bundle.root / component,)

        common = {"PACKAGES": {}, "available": available}
        names = {"graph": precisions, "built": ("fp32", "fp16")}
        for name, runs in names.items():
            module = types.SimpleNamespace(PRECISIONS={name: runs}, **common)
            if name == "built":
                module.locate = locate
            monkeypatch.setitem(sys.modules, f"toy_{name}", module)
            BACKENDS[name] = f"toy_{name}"
            NEEDS_GPU.add(name)
        for name in ("onnxruntime_cuda", "tensorrt_rtx", "tensorrt"):
            BACKENDS.pop(name, None)
        monkeypatch.setattr(resources, "gpus", lambda: (GPU,) if gpu else ())

    before, needing = dict(BACKENDS), set(NEEDS_GPU)
    yield make
    BACKENDS.clear()
    BACKENDS.update(before)  # in their order, which is that of preference
    NEEDS_GPU.intersection_update(needing)


def test_without_a_gpu_it_is_the_processor_and_nothing_more_is_said(machine, bundle):
    machine(gpu=False)
    found = choice.best(bundle)
    assert (found.backend, found.passed_over) == ("onnxruntime", {})
    assert found.sentence().startswith("backend: onnxruntime (CPU ")


def test_the_best_that_runs_everything_is_taken(machine, bundle):
    machine(engines=bundle.components)
    assert choice.best(bundle) == choice.Choice("built")


def test_what_a_better_one_lacks_is_said(machine, bundle):
    machine(engines=[name for name in bundle.components if name != "vae_encoder"])
    found = choice.best(bundle)
    assert found == choice.Choice("graph", {"built": "no engine of vae_encoder"})
    assert found.sentence() == "backend: graph (GPU 0); not built: no engine of vae_encoder"


def test_a_backend_without_its_package_is_passed_over(machine, bundle):
    machine(engines=bundle.components, missing=("built", "graph"))
    assert choice.best(bundle).backend == "onnxruntime"


def test_a_precision_that_was_asked_for_is_run(machine, bundle):
    graph = bundle.graph("transformer")
    both = {**bundle.components, "transformer": {"fp32": graph, "fp16": graph}}
    several = dataclasses.replace(bundle, components=both)
    machine()
    assert choice.best(several).backend == "graph"
    assert choice.best(several, {"transformer": "fp16"}).backend == "onnxruntime"


def test_where_none_runs_all_it_is_the_one_that_runs_most(machine, bundle):
    graphs = {name: {"bf16": next(iter(g.values()))} for name, g in bundle.components.items()}
    machine(engines=("transformer",), precisions=("fp32", "bf16"))
    mixed = dataclasses.replace(
        bundle, components={**graphs, "vae_encoder": {"fp8": bundle.graph("vae_encoder")}}
    )
    assert choice.best(mixed).backend == "graph"


def test_a_pool_takes_it_once_and_refuses_a_precision_that_it_does_not_run(machine, bundle):
    machine(gpu=False, precisions=("fp32", "bf16"))
    pool = EnginePool(bundle)
    assert (pool.backend, pool.choice) == ("onnxruntime", choice.Choice("onnxruntime"))
    assert EnginePool(bundle, backend="cpu").backend == "onnxruntime"
    graphs = {**bundle.components, "transformer": {"bf16": bundle.graph("transformer")}}
    other = dataclasses.replace(bundle, components=graphs)
    with pytest.raises(
        InputError, match=r"transformer in bf16: onnxruntime does not run bf16; take .* graph"
    ):
        EnginePool(other, precision={"transformer": "bf16"})


def test_of_several_precisions_one_that_was_built_is_taken(machine, bundle):
    graph = bundle.graph("transformer")
    both = {**bundle.components, "transformer": {"fp32": graph, "fp16": graph}}
    machine(engines=bundle.components)
    module = sys.modules["toy_built"]

    def locate(bundle, backend, component, precision, device=0):
        if precision != "fp16":
            raise InputError("none")
        return (bundle.root / component,)

    module.locate = locate
    several = dataclasses.replace(bundle, components=both)
    assert EnginePool(several, backend="built").precision("transformer") == "fp16"
