"""Philox against the paper's known answers, and torch's CUDA numbers against published ones."""

import numpy as np
import pytest

from ltxrt.engines.errors import InputError
from ltxrt.runtime.noise import cuda as noise_cuda
from ltxrt.runtime.noise.cpu import bfloat16
from ltxrt.runtime.noise.cuda import GPUS, TorchCudaGenerator, philox

# Random123's kat_vectors, philox4x32 with 10 rounds: counter, key, answer.
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]
# torch.randn(3, 4, device="cuda") after torch.manual_seed(0), as image-generation programs publish it.
SEED_0 = [
    -0.92466259, -0.42534415, -2.6438457, 0.14518388, -0.12086647, -0.57972564,
    -0.62285122, -0.32838709, -1.07454231, -0.36314407, -1.67105067, 2.26550497,
]  # fmt: skip


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN)
def test_philox_gives_the_known_answers(counter, key, answer):
    found = philox(np.array(counter, np.uint32)[:, None], key)
    assert found[:, 0].tolist() == list(answer)


@pytest.mark.parametrize("gpu", ["A100", "RTX 4090"])
def test_published_numbers_of_torch(gpu):
    np.testing.assert_allclose(TorchCudaGenerator(0, gpu).randn((3, 4)).ravel(), SEED_0, atol=1e-6)


def one_by_one(seed, gpu, sizes):
    """The kernel as its source tells it, thread by thread and number by number."""
    multiprocessors, threads_each = GPUS[gpu]
    offset, results = 0, []
    for size in sizes:
        grid = min(multiprocessors * (threads_each // 256), -(-size // 256))
        stride = grid * 256
        values = np.full(size, np.nan, np.float32)
        for thread in range(stride):
            for turn, start in enumerate(range(thread, size, stride * 4)):
                counter = np.array([offset + turn, 0, thread, 0], np.uint32)[:, None]
                words = philox(counter, (seed & 0xFFFFFFFF, seed >> 32))
                normals = [*noise_cuda._box_muller(*words[:2]), *noise_cuda._box_muller(*words[2:])]
                for i, place in enumerate(range(start, min(size, start + 4 * stride), stride)):
                    values[place] = normals[i][0]
        offset += (size - 1) // (stride * 4) + 1
        results.append(values)
    return results


def test_large_tensors_are_written_a_grid_apart(monkeypatch):
    """On a GPU of one block, so that a thousand numbers are many turns of it."""
    monkeypatch.setitem(GPUS, "toy", (1, 256))
    sizes = (5, 256, 257, 1024, 1025, 2600)
    generator = TorchCudaGenerator(2**40 + 7, "toy")
    for wanted in one_by_one(2**40 + 7, "toy", sizes):
        np.testing.assert_array_equal(generator.randn((wanted.size,)), wanted)


def test_small_tensors_do_not_depend_on_the_gpu_and_large_ones_do():
    draws = {gpu: TorchCudaGenerator(3, gpu) for gpu in ("A100", "RTX 4090")}
    small, large = ([d.randn((size,)) for d in draws.values()] for size in (150_000, 600_000))
    np.testing.assert_array_equal(*small)
    assert (large[0] != large[1]).any()
    for values in large:
        assert abs(values.mean()) < 0.01 and abs(values.std() - 1) < 0.01


def test_bf16_is_rounded():
    exact = TorchCudaGenerator(1, "H100").randn((64,))
    np.testing.assert_array_equal(TorchCudaGenerator(1, "H100").randn((64,), "bf16"), bfloat16(exact))


def test_wrong_gpus_and_seeds_are_refused():
    with pytest.raises(InputError, match="gpu 'GTX 970': must be one of A100, H100"):
        TorchCudaGenerator(0, "GTX 970")
    with pytest.raises(InputError, match="seed -1"):
        TorchCudaGenerator(-1, "A100")
