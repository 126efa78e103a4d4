"""Streaming weights: casts, layouts, memory."""

import errno
import hashlib
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest
import torch

from ltxrt.engines.errors import CheckpointError
from ltxrt.export.checkpoint.safetensors import SafetensorsFile, StoredTensor
from ltxrt.export.graph import weights
from ltxrt.export.graph.trace import Traced
from ltxrt.export.graph.weights import IR_DTYPES, prepare, read, stream
from ltxrt.parity.synthetic import checkpoint as synthetic

DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def stored(path, tensor, dtype):
    data = tensor.contiguous().view(torch.uint8).numpy().tobytes()
    path.write_bytes(b"padding!" + data)
    return StoredTensor("w", dtype, tuple(tensor.shape), path, 8, len(data))


@pytest.mark.parametrize("source", DTYPES)
@pytest.mark.parametrize("target", DTYPES.values())
@pytest.mark.parametrize("transposed", [False, True])
def test_casts_are_torch_s_bit_for_bit(tmp_path, source, target, transposed):
    tensor = torch.randn(6, 10).to(DTYPES[source])
    ours = prepare(read(stored(tmp_path / "f", tensor, source)), transposed, target)
    theirs = tensor.to(target)
    assert torch.equal(ours, theirs.t() if transposed else theirs)
    assert ours.is_contiguous() and ours.dtype == target


def streamed(folder, tensors, target):
    """What `stream` writes of float32 `tensors` as `target`."""
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    synthetic.write_random(folder / "in.safetensors", shapes, {}, "F32", 0, "random")
    sources = SafetensorsFile(folder / "in.safetensors").tensors
    with (folder / "in.safetensors").open("rb+") as file:
        for name, tensor in tensors.items():
            file.seek(sources[name].offset)
            file.write(tensor.numpy().tobytes())
    kind = ir.TensorType(IR_DTYPES[target])
    values = [ir.Value(name=n, shape=ir.Shape(s), type=kind) for n, s in shapes.items()]
    graph = ir.Graph([], [], nodes=[], name="g", opset_imports={"": 23})
    graph.initializers.update({value.name: value for value in values})
    traced = Traced(ir.Model(graph, ir_version=10), frozenset())
    written = stream(traced, sources, {}, folder / "out", "out")
    return {v.name: v.const_value for v in values}, written


def test_offsets_are_aligned_and_the_hash_is_the_file_s(tmp_path):
    sizes = {"scalar": (), "small": (3,), "page": (1024,), "odd": (1025,), "last": (7, 5)}
    tensors = {name: torch.randn(size) for name, size in sizes.items()}
    places, written = streamed(tmp_path, tensors, torch.float32)
    data = (tmp_path / "out").read_bytes()
    assert (written.bytes, written.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert len(places) == len(sizes)
    end = 0
    for name, place in places.items():
        assert place.offset >= end and place.offset % (4096 if place.length >= 4096 else 64) == 0
        end = place.offset + place.length
        found = np.frombuffer(data[place.offset : end], np.float32).reshape(sizes[name])
        np.testing.assert_array_equal(found, tensors[name].numpy())
    assert end == len(data)


@pytest.mark.parametrize("number", [65505.0, -1e9])
def test_numbers_beyond_the_target_are_refused(tmp_path, number):
    tensors = {"fits": torch.tensor([65504.0, -65504.0]), "w": torch.tensor([0.0, number])}
    with pytest.raises(CheckpointError, match=r"w holds .* more than .* float16, 65504; export .* in bf16"):
        streamed(tmp_path, tensors, torch.float16)
    streamed(tmp_path, tensors, torch.bfloat16)
    streamed(tmp_path, {"fits": tensors["fits"]}, torch.float16)


def test_float8_is_read(tmp_path):
    tensor = torch.randn(4, 8).to(torch.float8_e4m3fn)
    ours = prepare(read(stored(tmp_path / "f", tensor, "F8_E4M3")), False, torch.float32)
    assert torch.equal(ours, tensor.float())


def test_a_file_that_shrinks_meanwhile_is_an_error(tmp_path):
    tensor = stored(tmp_path / "f", torch.randn(64, 64), "F32")
    (tmp_path / "f").write_bytes((tmp_path / "f").read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="truncated while it was read"):
        read(tensor)


def test_a_disk_that_fails_at_the_last_flush_is_an_error(tmp_path, monkeypatch):
    def fails(_descriptor):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(weights, "UNFLUSHED", 1)
    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(OSError, match="Input/output error"):
        streamed(tmp_path, {"w": torch.zeros(4, 4)}, torch.float32)


def test_other_dtypes_are_refused(tmp_path):
    tensor = replace(stored(tmp_path / "f", torch.zeros(4, dtype=torch.int64), "F32"), dtype="I64")
    with pytest.raises(CheckpointError, match="w is I64; weights may be F64, F32"):
        read(tensor)


def test_memory_is_that_of_the_largest_tensor(tmp_path):
    """Forty tensors of 8 MB, streamed as an export does, in a process of their own."""
    shapes = {f"w{i}": (1024, 2048) for i in range(40)}
    synthetic.write_random(tmp_path / "f.safetensors", shapes, {}, "F32", 0, "random")
    code = f"""
import resource, onnx_ir as ir
from pathlib import Path
from ltxrt.export.checkpoint.safetensors import SafetensorsFile
from ltxrt.export.graph.trace import Traced
from ltxrt.export.graph.weights import stream
tensors = SafetensorsFile(Path({str(tmp_path / "f.safetensors")!r})).tensors
kind = ir.TensorType(ir.DataType.FLOAT)
values = [ir.Value(name=n, shape=ir.Shape((2048, 1024)), type=kind) for n in tensors]
graph = ir.Graph([], [], nodes=[], name="g", opset_imports={{"": 23}})
for value in values:
    graph.initializers[value.name] = value
traced = Traced(ir.Model(graph, ir_version=10), frozenset(tensors))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
written = stream(traced, tensors, {{}}, Path({str(tmp_path / "out")!r}), "out")
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024, written.bytes, written.sha256)
"""
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    grown, size, digest = output.split()
    assert int(size) == 40 * 8 * 2**20
    assert int(grown) < 6 * 8 * 2**20
    data = (tmp_path / "out").read_bytes()
    assert hashlib.sha256(data).hexdigest() == digest
    first = SafetensorsFile(tmp_path / "f.safetensors").tensors["w0"].float32()
    np.testing.assert_array_equal(np.frombuffer(data[: 8 * 2**20], np.float32).reshape(2048, 1024), first.T)
