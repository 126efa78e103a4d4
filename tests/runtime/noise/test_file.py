import struct

import numpy as np
import pytest

from ltxrt.engines.errors import InputError
from ltxrt.runtime.noise.file import load

SHAPE = (1, 4, 2, 2, 3)
NOISE = np.random.default_rng(0).standard_normal(SHAPE, dtype=np.float32)


def saved(tmp_path, array):
    np.save(tmp_path / "n.npy", array, allow_pickle=True)
    return tmp_path / "n.npy"


@pytest.mark.parametrize("array", [NOISE, NOISE[0], NOISE.astype(np.float16), np.asfortranarray(NOISE)])
def test_arrays_come_back(tmp_path, array):
    found = load(saved(tmp_path, array), SHAPE)
    assert found.dtype == np.float32 and found.shape == SHAPE
    np.testing.assert_array_equal(found, array.astype(np.float32).reshape(SHAPE))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (NOISE.astype(np.float64), "must be a .npy array of float32 or float16"),
        (NOISE[:, :2], r"has shape \(1, 2, 2, 2, 3\); this request takes \(1, 4, 2, 2, 3\)"),
        (np.where(NOISE > 2, np.nan, np.inf).astype(np.float32), "holds NaN or Inf"),
        (np.array([{"a": 1}], object), "must be a .npy array of float32 or float16"),
    ],
)
def test_other_arrays_are_refused(tmp_path, array, message):
    with pytest.raises(InputError, match=message):
        load(saved(tmp_path, array), SHAPE)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        load(tmp_path / "absent.npy", SHAPE)
    path = saved(tmp_path, NOISE)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(InputError, match=r"is not a complete \.npy array"):
        load(path, SHAPE)
    path.write_text("words")
    with pytest.raises(InputError, match=r"is not a complete \.npy array"):
        load(path, SHAPE)
    np.savez(tmp_path / "z.npz", NOISE)
    with pytest.raises(InputError, match=r"is not a complete \.npy array"):
        load(tmp_path / "z.npz", SHAPE)


def header(words, version=1, values=b""):
    """A .npy file of any header."""
    text = words.encode("latin1")
    return (
        b"\x93NUMPY"
        + bytes([version, 0])
        + struct.pack("<H" if version == 1 else "<I", len(text))
        + text
        + values
    )


WORDS = "{'descr': '%s', 'fortran_order': False, 'shape': %s, }"
FLOATS = "must be a .npy array of float32"
WHOLE = r"is not a complete \.npy array"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (header(WORDS % ("<f4", "(1, 4, 2, 2, 3)"), values=bytes(4 * 47)), WHOLE),  # a value is missing
        (
            header(WORDS % ("|O", "(1, 4, 2, 2, 3)"), values=b"cos\nsystem\n"),
            "must be a .npy array of float32",
        ),
        (header(WORDS % ("<f4", f"({10**12}, {10**12})")), "has shape of 2 axes that no file holds"),
        (header(WORDS % ("<f4", f"(-1, {'9' * 3900})")), "has shape of 2 axes that no file holds"),
        (header(WORDS % ("<f4", f"({'1,' * 1900})")), "has shape of 1900 axes that no file holds"),
        (header(WORDS % ("<f4", "(1, 4, 2, 2, 3)") + " " * 60_000, values=bytes(192)), WHOLE),
        (struct.pack("<6sBBI", b"\x93NUMPY", 2, 0, 2**32 - 1) + b"(" * 10**6, WHOLE),
        (header("-" * 4000 + "1"), WHOLE),
        (header("(" * 4000), WHOLE),
        (header("[]"), WHOLE),
        (header(WORDS % ("<f4,<f4", "()")), FLOATS),
        (header(WORDS % ("<f4", "(1, 4, 2, 2, 3)"), version=9), WHOLE),
        (b"\x93NUMPY", WHOLE),
    ],
)
def test_odd_headers_are_refused_by_what_they_say(tmp_path, content, message):
    (tmp_path / "n.npy").write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        load(tmp_path / "n.npy", SHAPE)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("version", [1, 2])
def test_values_follow_a_header_of_any_length(tmp_path, version):
    words = WORDS % ("<f4", SHAPE)
    for padding in (0, 1, 3000):
        (tmp_path / "n.npy").write_bytes(header(words + " " * padding, version, NOISE.tobytes() + b"more"))
        np.testing.assert_array_equal(load(tmp_path / "n.npy", SHAPE), NOISE)


def test_a_zip_by_that_name_is_refused(tmp_path):
    np.savez(tmp_path / "n.npz", NOISE)
    (tmp_path / "n.npz").rename(tmp_path / "n.npy")
    with pytest.raises(InputError, match=WHOLE):
        load(tmp_path / "n.npy", SHAPE)
