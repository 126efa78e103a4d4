"""The reader against the reference writer, and against every way a download goes wrong."""

import json
import os

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ltxrt.engines.errors import CheckpointError
from ltxrt.export.checkpoint.safetensors import SafetensorsFile


def write(path, header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


def entry(begin=0, end=8, shape=(2,), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def test_reads_what_safetensors_writes(tmp_path):
    tensors = {
        "a": torch.randn(3, 4),
        "b": torch.randn(5).to(torch.bfloat16),
        "c": torch.randn(2, 2, 2).to(torch.float16),
        "d": torch.arange(3),
        "e": torch.randn(4).to(torch.float8_e4m3fn),
        "scalar": torch.tensor(1000.0),
    }
    save_file(tensors, tmp_path / "x.safetensors", metadata={"config": "{}"})
    file = SafetensorsFile(tmp_path / "x.safetensors")
    assert file.metadata == {"config": "{}"}
    assert {n: t.dtype for n, t in file.tensors.items()} == {
        "a": "F32", "b": "BF16", "c": "F16", "d": "I64", "e": "F8_E4M3", "scalar": "F32",
    }  # fmt: skip
    for name, tensor in tensors.items():
        stored = file.tensors[name]
        assert stored.shape == tuple(tensor.shape) and stored.size == tensor.numel()
        assert stored.raw().tobytes() == tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
    for name in ("a", "b", "c", "scalar"):
        np.testing.assert_array_equal(file.tensors[name].float32(), tensors[name].float().numpy())
    assert file.tensors["scalar"].float32().shape == ()


def test_raw_is_a_read_only_view_of_one_map(tmp_path):
    save_file({"a": torch.ones(2), "b": torch.ones(2)}, tmp_path / "x.safetensors")
    tensors = SafetensorsFile(tmp_path / "x.safetensors").tensors
    a, b = tensors["a"].raw(), tensors["b"].raw()
    assert a.base is b.base and not a.flags.writeable


def test_a_rewritten_file_is_mapped_anew(tmp_path):
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.zeros(2)}, path)
    assert SafetensorsFile(path).tensors["a"].float32().sum() == 0
    path.unlink()
    save_file({"a": torch.ones(2)}, path)
    assert SafetensorsFile(path).tensors["a"].float32().sum() == 2


def test_float32_refuses_fp8(tmp_path):
    save_file({"a": torch.ones(2).to(torch.float8_e4m3fn)}, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match="a is F8_E4M3"):
        SafetensorsFile(tmp_path / "x.safetensors").tensors["a"].float32()


def test_missing_file_folder_pickle_empty_and_pointer(tmp_path):
    with pytest.raises(CheckpointError, match="no such file"):
        SafetensorsFile(tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match="is a folder"):
        SafetensorsFile(tmp_path)
    (tmp_path / "x.ckpt").write_bytes(b"PK")
    with pytest.raises(CheckpointError, match="convert it to safetensors"):
        SafetensorsFile(tmp_path / "x.ckpt")
    (tmp_path / "x.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match="0 bytes"):
        SafetensorsFile(tmp_path / "x.safetensors")
    (tmp_path / "x.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(CheckpointError, match="git lfs pull"):
        SafetensorsFile(tmp_path / "x.safetensors")


def test_truncated_says_expected_and_found(tmp_path):
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.zeros(100)}, path)
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(CheckpointError, match=f"truncated: expected {size} bytes, found {size - 40}"):
        SafetensorsFile(path)
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(CheckpointError, match=r"truncated: expected at least .* found 20"):
        SafetensorsFile(path)
    path.write_bytes(b"abc")
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        SafetensorsFile(path)


@pytest.mark.parametrize(
    ("header", "data", "match"),
    [
        (b"{not json", b"", "corrupt"),
        (b"[]", b"", "not a JSON object"),
        (b"\xff\xfe", b"", "corrupt"),
        (b"[" * 100_000, b"", "corrupt"),
        ({"a": 3}, b"", "entry of 'a'"),
        ({"a": {"dtype": "F32", "shape": [2]}}, b"", "entry of 'a'"),
        ({"a": entry(dtype="F4")}, b"\0" * 8, "dtype 'F4'"),
        ({"a": entry(dtype=["F32"])}, b"\0" * 8, "dtype \\['F32'\\]"),
        ({"a": entry(shape=(3,))}, b"\0" * 8, "spans 8 bytes, but F32 .* takes 12"),
        ({"a": entry(-8, 0)}, b"\0" * 8, "numbers of 'a'"),
        ({"a": entry(shape=(-2, -1))}, b"\0" * 8, "numbers of 'a'"),
        ({"a": entry(0, 8), "b": entry(4, 12)}, b"\0" * 12, "b overlaps"),
        ({"a": entry(0, 8), "b": entry(12, 20)}, b"\0" * 20, "gap before it"),
        ({"a": entry()}, b"\0" * 9, "1 bytes after its last tensor"),
        (b'{"a": {}, "a": {}}', b"", "appears twice"),
        ({"__metadata__": {"config": 1}}, b"", "__metadata__"),
        (
            b'{"a": {"dtype": "F32", "data_offsets": [0, 8], "shape": [' + b"9" * 400_000 + b"]}}",
            b"",
            "of 400000 digits",
        ),
        ({"a": entry(shape=(2**63,) * 1000)}, b"\0" * 8, "a has 1000 axes, more than 8"),
        ({"a": entry(shape=(2**63,) * 8)}, b"\0" * 8, "spans 8 bytes, but"),
        ({"\x1b[2J": entry()}, b"\0" * 8, "corrupt .name '.x1b"),
        ({"a" * 1000: entry()}, b"\0" * 8, "corrupt .name 'aaa"),
        ({str(i): 0 for i in range(70_000)}, b"", "more than 65536 tensors"),
    ],
)
def test_corrupt_headers(tmp_path, header, data, match):
    with pytest.raises(CheckpointError, match=match):
        SafetensorsFile(write(tmp_path / "x.safetensors", header, data))


def test_header_length_is_bounded(tmp_path):
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        SafetensorsFile(write(tmp_path / "x.safetensors", {}, length=(8 << 20) + 1))


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match="is not a regular file"):
        SafetensorsFile(tmp_path / "x.safetensors")
