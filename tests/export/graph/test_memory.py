"""The memory that is computed from a graph, against what ONNX Runtime takes."""

import subprocess
import sys

import onnx_ir as ir
import pytest

from ltxrt.engines.bundle import read_bundle
from ltxrt.engines.errors import InputError
from ltxrt.export.graph.memory import peak, per_cell

MEASURE = r"""
import re, sys
from pathlib import Path
import numpy as np
from ltxrt.engines.backend import load_engine
from ltxrt.engines.bundle import read_bundle
component, f, h, w = sys.argv[2], *map(int, sys.argv[3:])
bundle = read_bundle(sys.argv[1])
engine = load_engine(bundle, component, threads=1)
sample = bundle.contract(component).sample
rss = lambda: 1024 * int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])
engine(**sample({"B": 1, "f": 1, "h": 1, "w": 1}, np.random.default_rng(0)))
feed = sample({"B": 1, "f": f, "h": h, "w": w}, np.random.default_rng(0))
before = rss()
engine(**feed)
print(rss() - before)
"""


@pytest.fixture
def model(tiny_bundle):
    def load(component, version="0.9.5"):
        bundle = read_bundle(tiny_bundle(version))
        return bundle, ir.load(bundle.path(bundle.graph(component).file))

    return load


@pytest.mark.parametrize("component", ["vae_encoder", "vae_decoder"])
@pytest.mark.parametrize("version", ["0.9.0", "0.9.1", "0.9.5"])
def test_the_linear_bounds_hold_at_every_size(component, version, model):
    bundle, graph = model(component, version)
    bounds = per_cell(graph)
    memory = bundle.graph(component).memory
    assert vars(memory) == vars(bounds), "the bundle says what the graph gives"
    for f, h, w in ((1, 1, 1), (1, 8, 5), (4, 3, 7), (9, 2, 2)):
        found = peak(graph, {"B": 1, "f": f, "h": h, "w": w})
        cells = f * h * w
        assert found.bytes <= bounds.fixed_bytes + bounds.bytes_per_cell * cells
        assert found.largest_elements <= bounds.elements_per_cell * cells


@pytest.mark.parametrize("component", ["vae_encoder", "vae_decoder"])
def test_onnx_runtime_takes_about_what_was_computed(component, model, tiny_bundle):
    _, graph = model(component)
    size = {"f": 4, "h": 16, "w": 16}
    command = [sys.executable, "-c", MEASURE, str(tiny_bundle("0.9.5")), component, *map(str, size.values())]
    taken = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    computed = peak(graph, {"B": 1, **size}).bytes
    assert computed / 2 <= taken <= 1.5 * computed


def test_a_symbol_without_size_is_named(model):
    _, graph = model("vae_decoder")
    with pytest.raises(InputError, match="no size was given for 'w'"):
        peak(graph, {"B": 1, "f": 1, "h": 1})
