"""A backend is verified as soon as it has a row; a family without a sampler is verified by random inputs."""

import dataclasses
import sys
from types import ModuleType

import numpy as np
import pytest

from ltxrt.engines import ort, verification
from ltxrt.engines.backend import BACKENDS
from ltxrt.engines.bundle import read_bundle
from ltxrt.engines.contract import Tensor
from ltxrt.engines.errors import EngineError, InputError
from ltxrt.export.ltxv.open import open_checkpoint
from ltxrt.parity import families
from ltxrt.parity.check import compare, end_to_end, inputs, results
from ltxrt.parity.check import run as check
from ltxrt.parity.check.tolerances import tolerance

COMPONENT = "vae_encoder"


class Scaled(ort.OrtSession):
    """What an engine computes, times a factor."""

    factor = 1.0

    def run(self, feeds):
        return {name: array * np.float32(self.factor) for name, array in super().run(feeds).items()}


@pytest.fixture
def backend(monkeypatch):
    """A backend as an extension adds it: one module, one row."""
    module = ModuleType("ltxrt_test_backend")
    module.PRECISIONS = {"scaled": ("fp32",)}
    module.PACKAGES = {"scaled": ()}
    module.available = lambda backend, device=0: "the test"
    module.factor = 1.0

    def load(path, options):
        session = ort.load(path, dataclasses.replace(options, backend="onnxruntime"))
        session.__class__ = Scaled
        session.factor = module.factor
        return session

    module.load = load
    monkeypatch.setitem(sys.modules, "ltxrt_test_backend", module)
    monkeypatch.setitem(BACKENDS, "scaled", "ltxrt_test_backend")
    return module


@pytest.fixture
def order(tiny_bundle, tiny_checkpoint, monkeypatch):
    """Of a family that brings no sampler."""
    monkeypatch.setattr(families, "FAMILIES", {})
    checkpoint = tiny_checkpoint("0.9.5")
    opened = open_checkpoint(checkpoint / "model.safetensors", None, checkpoint / "t5", "0.9.5")
    return check.Order(read_bundle(tiny_bundle("0.9.5")), opened, inputs.Plan(()), components=(COMPONENT,))


def rows(order):
    report, feeds = check.run(order, lambda line: None)
    return {row.backend: row for row in report.checks}, [f for f in feeds if f.component == COMPONENT]


def test_a_new_row_is_verified_on_random_inputs_of_the_contract(order, backend):
    found, feeds = rows(order)
    assert set(found) == set(BACKENDS)
    assert {name for name, row in found.items() if row.status == results.PASSED} == {"onnxruntime", "scaled"}
    assert all(row.problems for row in found.values() if row.status == results.SKIPPED)
    contract = order.bundle.contract(COMPONENT)
    assert len(found["scaled"].calls) == len(feeds) == 3
    sizes = [contract.check(feed.inputs) for feed in feeds]
    assert len({tuple(size.values()) for size in sizes}) == 3 and feeds[0].size == "B=1, f=2, h=3, w=4"
    assert all(call.metrics.relative_l2 > 0 and len(call.by_token) > 1 for call in found["scaled"].calls)


def test_a_new_row_that_computes_something_else_fails(order, backend):
    backend.factor = 1.01
    found, _ = rows(order)
    assert found["scaled"].status == results.FAILED and found["onnxruntime"].status == results.PASSED
    assert "3 of 3 calls failed, first random inputs" in found["scaled"].problems[0]


def test_a_new_row_says_itself_why_it_cannot_run_here(order, backend):
    def available(backend, device=0):
        raise EngineError("no such processor")

    backend.available = available
    found, _ = rows(dataclasses.replace(order, backends=("scaled",)))
    assert found["scaled"].status == results.SKIPPED and found["scaled"].problems == ("no such processor",)


def test_without_a_sampler_there_is_no_whole_run(order, tmp_path):
    with pytest.raises(InputError, match="has no sampler for this model"):
        end_to_end.run(order, tmp_path, lambda line: None)


TENSORS = (Tensor("video", "f32", ("B", "N", 4)), Tensor("audio", "f32", ("B", "M", 4)))


@pytest.mark.parametrize(
    ("wrong", "allowed", "expected"),
    [
        ("", {}, {"video": "passed", "audio": "passed"}),
        ("audio", {}, {"video": "passed", "audio": "failed"}),
        ("audio", {"fp32": (0.2, "loud")}, {"video": "passed", "audio": "passed"}),
    ],
)
def test_each_output_has_its_own_verdict_and_tolerance(wrong, allowed, expected):
    rng = np.random.default_rng(0)
    theirs = [{t.name: rng.standard_normal((1, 5, 4), np.float32) for t in TENSORS} for _ in range(2)]
    ours = [{name: array * (1.1 if name == wrong else 1) for name, array in one.items()} for one in theirs]
    ours = [{name: array.astype(np.float32) for name, array in one.items()} for one in ours]
    feeds = [inputs.Feed("av", "random inputs", "N=5", {"x": np.zeros((1, 5))}) for _ in theirs]
    ran = [compare.Ran("x", tuple(one), 1.0) for one in (theirs, ours)]
    found = {}
    for tensor in TENSORS:
        base = results.Check("av", "fp32", "b", "torch", output=tensor.name)
        special = allowed if tensor.name == "audio" else None
        found[tensor.name] = check.judge(base, tensor, tolerance("fp32", special), feeds, *ran)
    assert {name: row.status for name, row in found.items()} == expected
    assert found["audio"].title == "av: audio" and len(found["audio"].calls) == 2


def test_a_component_counts_as_verified_only_if_all_its_outputs_passed(tiny_bundle, tmp_path):
    bundle = read_bundle(tiny_bundle("0.9.5"))
    copy = dataclasses.replace(bundle, root=tmp_path)
    (tmp_path / "parity").mkdir()
    for audio, left in (("passed", []), ("failed", [COMPONENT])):
        checks = tuple(
            results.Check(COMPONENT, "fp32", "onnxruntime", "torch", status, output=name)
            for name, status in (("video", "passed"), ("audio", audio))
        )
        results.write(check.assemble(bundle, checks), tmp_path / verification.REPORT)
        assert verification.unproved(copy, "onnxruntime", {COMPONENT: "fp32"}) == left
        assert [c.output for c in results.read(tmp_path / verification.REPORT).checks] == ["video", "audio"]
