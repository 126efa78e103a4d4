"""What an export reports while it works."""

import itertools
import os

from ltxrt.engines.bundle import read_bundle, verify
from ltxrt.export.graph import weights
from ltxrt.export.ltxv.open import open_checkpoint
from ltxrt.export.write import Plan, export_bundle


def opened(folder):
    return open_checkpoint(folder / "model.safetensors", version="0.9.5")


def test_every_stage_is_reported_when_it_begins_and_every_byte_of_weights(
    tiny_checkpoint, tmp_path, monkeypatch
):
    monkeypatch.setattr(weights, "PIECE", 1000)
    plan = Plan(
        opened(tiny_checkpoint("0.9.5")), tmp_path / "b", {"vae_encoder": "fp16", "transformer": "fp32"}
    )
    seen = []
    export_bundle(plan, seen.append)
    assert list(dict.fromkeys(one.stage for one in seen)) == list(plan.stages)
    assert all(seconds > 0 for seconds in plan.stages.values())
    for stage in plan.stages:
        first, *rest = [one for one in seen if one.stage == stage]
        assert first.done == 0
        if "writing" in stage:
            done, total = [one.done for one in rest], rest[0].total
            assert {(one.total, one.unit) for one in rest} == {(total, "byte")}
            assert done == sorted(done) and done[-1] == total
            assert max(b - a for a, b in itertools.pairwise([0, *done])) <= 1000
    verify(read_bundle(plan.folder))


def test_a_large_file_reaches_the_disk_while_it_is_written(tiny_checkpoint, tmp_path, monkeypatch):
    """What is flushed at the end only takes as long again, and no signal ends that."""
    monkeypatch.setattr(weights, "UNFLUSHED", 100_000)
    flushed, fsync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (flushed.append(os.fstat(file).st_size), fsync(file)))
    export_bundle(Plan(opened(tiny_checkpoint("0.9.5")), tmp_path / "b", {"transformer": "fp32"}))
    bundle = read_bundle(tmp_path / "b")
    size = bundle.components["transformer"]["fp32"].data[0].bytes
    earlier = [count for count in flushed if count < size]
    assert len(set(earlier)) >= 4
    verify(bundle)
