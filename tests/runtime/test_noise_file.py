import numpy as np
import pytest

from ltxrt.engines.errors import InputError
from ltxrt.runtime.noise_file import load

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
        (np.array([{"a": 1}], object), "is no whole .npy array of numbers"),
    ],
)
def test_other_arrays_are_refused(tmp_path, array, message):
    with pytest.raises(InputError, match=message):
        load(saved(tmp_path, array), SHAPE)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        load(tmp_path / "absent.npy", SHAPE)
    path = saved(tmp_path, NOISE)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(InputError, match=r"is no whole \.npy array"):
        load(path, SHAPE)
    path.write_text("words")
    with pytest.raises(InputError, match=r"is no whole \.npy array"):
        load(path, SHAPE)
    np.savez(tmp_path / "z.npz", NOISE)
    with pytest.raises(InputError, match=r"must be a \.npy array"):
        load(tmp_path / "z.npz", SHAPE)
