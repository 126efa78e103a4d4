"""Estimates of memory: how they follow a plan, and what ONNX Runtime takes."""

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from ltxrt.engines import backend
from ltxrt.engines.bundle import read_bundle
from ltxrt.engines.errors import setting, worded
from ltxrt.engines.machine import resources
from ltxrt.runtime import EnginePool, Pipeline, Request
from ltxrt.runtime.ltxv import explain, shortage
from ltxrt.runtime.ltxv.estimate.needs import needs

SIZE = {"height": 64, "width": 96, "num_frames": 17}
GIB = 1 << 30


@pytest.fixture(scope="module")
def bundle(two_pass_bundle):
    return read_bundle(two_pass_bundle)


@pytest.fixture(scope="module")
def plan(bundle):
    """A function that plans a request on the CPU."""
    pipeline = Pipeline(bundle, backend="cpu")
    return lambda **settings: pipeline.plan(Request("fog", **{**SIZE, **settings}))


@pytest.fixture
def picture(tmp_path):
    Image.fromarray(np.zeros((64, 96, 3), np.uint8)).save(tmp_path / "image.png")
    return tmp_path / "image.png"


def stages(plan, bundle):
    return {need.stage: need for need in needs(plan, EnginePool(bundle, backend="cpu"))}


def test_a_run_s_stages_are_those_of_its_progress(plan, bundle, picture):
    assert list(stages(plan(), bundle)) == ["text encoder", "transformer", "image decoder"]
    two = plan(two_passes=True, downscale_factor=0.5, image=picture)
    assert list(stages(two, bundle)) == [
        "text encoder",
        "image encoder, pass 1/2",
        "transformer, pass 1/2",
        "latent upsampler",
        "image encoder, pass 2/2",
        "transformer, pass 2/2",
        "image decoder",
    ]


def test_sizes_are_those_of_the_largest_call(plan, bundle, picture):
    found = stages(plan(image=picture, steps=7), bundle)
    branches = max(len(step.branches) for step in plan(steps=7).passes[0].guidance)
    text = found["text encoder"].sizes["T"]
    assert dict(found["transformer"].sizes) == {"B": branches, "N": 3 * 2 * 3, "K": 2, "T": text}
    assert found["transformer"].calls == 7
    assert dict(found["image decoder"].sizes) == {"B": 1, "f": 3, "h": 2, "w": 3}
    assert found["image encoder"].sizes["f"] == 1


def test_tiles_bound_the_decoder_and_leave_frames(plan, bundle):
    large = {"height": 512, "width": 512, "num_frames": 65}
    whole, tiled = (stages(plan(**large, **memory), bundle)["image decoder"]
                    for memory in ({}, {"vae_memory": 300 << 20}))  # fmt: skip
    assert whole.calls == 1 and tiled.calls > 1
    assert tiled.activations <= 300 << 20 < whole.activations
    assert tiled.arrays > whole.arrays


def test_engines_that_are_kept_add_up(plan, bundle):
    made = plan()
    alone = explain(made, EnginePool(bundle, backend="cpu"))
    kept = explain(made, EnginePool(bundle, backend="cpu", keep_loaded=True))
    some = explain(made, EnginePool(bundle, backend="cpu", keep_loaded={"transformer"}))
    weights = {stage.component: stage.weights for stage in alone.stages}
    assert alone.largest == kept.largest == "image decoder"
    assert kept.peak == alone.peak + weights["text_encoder"] + weights["transformer"]
    assert some.peak == alone.peak + weights["transformer"]


MEASURE = r"""
import json, sys
import numpy as np, onnxruntime
from ltxrt.engines.backend import load_engine
from ltxrt.engines.bundle import read_bundle
from ltxrt.parity.environment import peak_memory
bundle, component, sizes = read_bundle(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
sample = bundle.contract(component).sample
small = sample({**dict.fromkeys(sizes, 1), "T": 4}, np.random.default_rng(0))
feed = sample(sizes, np.random.default_rng(0))
with load_engine(bundle, component, threads=1) as engine:
    engine(**small)
    before = peak_memory()
    engine(**feed)
print(peak_memory() - before)
"""


@pytest.mark.parametrize(
    ("component", "stage", "settings"),
    [
        ("transformer", "transformer", {"height": 512, "width": 768, "num_frames": 41}),
        ("transformer", "transformer", {"height": 512, "width": 512, "num_frames": 17, "max_tokens": 512}),
        ("latent_upsampler", "latent upsampler",
         {"height": 1024, "width": 1024, "num_frames": 49, "two_passes": True, "downscale_factor": 0.5}),
    ],
)  # fmt: skip
def test_onnx_runtime_takes_about_what_was_estimated(plan, bundle, component, stage, settings):
    import json

    found = stages(plan(**settings), bundle)
    (need,) = [n for name, n in found.items() if name.partition(",")[0] == stage][-1:]
    command = [sys.executable, "-c", MEASURE, str(bundle.root), component, json.dumps(dict(need.sizes))]
    taken = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert need.activations / 2.5 <= taken <= 1.25 * need.activations + (8 << 20)


def having(monkeypatch, available):
    monkeypatch.setattr(resources, "memory", lambda: resources.Memory(64 * GIB, available, None))


@pytest.mark.parametrize(
    ("settings", "stage", "advice"),
    [
        ({"height": 512, "width": 768, "num_frames": 257}, "transformer",
         "give a smaller height and width, or fewer num_frames"),
        ({}, "image decoder", "give a smaller vae_memory"),
        ({"height": 64, "width": 64, "num_frames": 1, "steps": 1}, "image decoder",
         "close other programs, or expect its weights to be read again and again"),
    ],
)  # fmt: skip
def test_a_run_beyond_the_memory_at_hand_is_warned_of(plan, bundle, monkeypatch, settings, stage, advice):
    having(monkeypatch, 1 << 20)
    line = worded(shortage(plan(**settings), EnginePool(bundle, backend="cpu")), str)
    assert line.startswith(f"warning: the stage {stage} takes about ") and line.endswith(advice)
    assert "of main memory, of which 1 MiB are available" in line


def test_a_run_that_fits_and_a_machine_that_does_not_tell_are_not_warned_of(plan, bundle, monkeypatch):
    engines = EnginePool(bundle, backend="cpu")
    having(monkeypatch, 64 * GIB)
    assert shortage(plan(), engines) is None and explain(plan(), engines).fits is True
    monkeypatch.setattr(resources, "memory", lambda: None)
    assert shortage(plan(), engines) is None and explain(plan(), engines).fits is None


def test_on_a_gpu_it_is_the_gpu_s_memory_and_fused_attention_writes_no_scores(plan, bundle, monkeypatch):
    """Not verified on a GPU: the estimate is of values in 16 bits."""
    gpu = resources.Gpu(0, "NVIDIA Test", 24 * GIB, GIB, "sm89", "580.65")
    monkeypatch.setattr(resources, "gpus", lambda: (gpu,))
    made = plan(height=512, width=768, num_frames=41)
    on_gpu = SimpleNamespace(bundle=bundle, backend="tensorrt", threads=None, device=0, keep_loaded=False)
    found = explain(made, on_gpu)
    assert (found.where, found.available) == ("GPU 0 (NVIDIA Test)", GIB)
    assert all("tensorrt is not installed" in stage.problem for stage in found.stages)
    halves = SimpleNamespace(
        **{**vars(bundle), "components": {n: {"fp16": g["fp32"]} for n, g in bundle.components.items()}}
    )
    made16 = SimpleNamespace(**{**vars(made), "precisions": dict.fromkeys(made.precisions, "fp16")})
    fused = {n.stage: n for n in needs(made16, SimpleNamespace(bundle=halves, backend="tensorrt"))}
    assert fused["transformer"].activations * 4 < stages(made, bundle)["transformer"].activations
    assert backend.needs_gpu("tensorrt") and setting("x")
