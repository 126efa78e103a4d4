import math
import sys

import numpy as np
import pytest
import torch

from ltxrt.engines.errors import InputError
from ltxrt.runtime.noise.cpu import TorchCpuGenerator

SEEDS = [0, 42, 171198, 2**32 + 5, 2**63 + 12345, 2**64 - 1]
SIZES = [1, 5, 15, 16, 17, 31, 1000, 1_000_003]
# torch's vectorised and scalar kernels differ from each other by 2e-6
TOLERANCE = 3e-6 if torch.backends.cpu.get_cpu_capability() == "DEFAULT" else 1e-6


@pytest.mark.parametrize("seed", SEEDS)
def test_uniform_numbers_are_torchs_bit_for_bit(seed):
    reference = torch.Generator("cpu").manual_seed(seed)
    ours = TorchCpuGenerator(seed)
    for size in (700, 1, 5000):  # past the generator's own block of 624
        np.testing.assert_array_equal(ours._uniform(size), torch.rand(size, generator=reference).numpy())
    doubles = torch.rand(50, generator=reference, dtype=torch.float64).numpy()
    np.testing.assert_array_equal(ours._uniform53(50), doubles)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("size", SIZES)
def test_normal_numbers_are_torchs(seed, size):
    reference = torch.randn(size, generator=torch.Generator("cpu").manual_seed(seed)).numpy()
    ours = TorchCpuGenerator(seed).randn((size,))
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, reference, rtol=0, atol=TOLERANCE)


def test_several_draws_of_mixed_sizes_follow_torchs_stream():
    reference, ours = torch.Generator("cpu").manual_seed(42), TorchCpuGenerator(42)
    for shape in [(5,), (1, 128, 2, 3, 3), (1,), (2, 3), (17,), (3,), (1,), (0,), (1, 33, 5), (7,), ()]:
        expected = torch.randn(shape, generator=reference).numpy()
        drawn = ours.randn(shape)
        assert drawn.shape == shape
        np.testing.assert_allclose(drawn, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("shape", [(1, 16, 3, 3, 5), (1, 128, 5, 12, 20), (1, 3, 1, 5, 1), (1, 7, 1, 3, 1)])
def test_strided_numbers_are_torchs_bit_for_bit(shape):
    """torch fills a tensor with permuted axes one by one; an odd one out is kept for the next."""
    batch, channels, *grid = shape
    reference, ours = torch.Generator("cpu").manual_seed(42), TorchCpuGenerator(42)
    tokens = torch.empty(batch, math.prod(grid), channels)
    for _ in range(2):
        latents = tokens.swapaxes(1, 2).unflatten(2, grid)
        assert not latents.is_contiguous()
        expected = torch.empty_like(latents).normal_(generator=reference).flatten(2).swapaxes(1, 2)
        drawn = ours.randn_strided(tuple(tokens.shape))
        np.testing.assert_array_equal(drawn, expected.numpy())
        np.testing.assert_array_equal(ours.rand((5,)), torch.rand(5, generator=reference).numpy())
        np.testing.assert_array_equal(ours.randn((5,)), torch.randn(5, generator=reference).numpy())


@pytest.mark.parametrize("size", [3, 16, 20, 35, 1001, 1_000_003])
def test_bf16_numbers_are_torchs(size):
    """Rounded once, at the end; a neighbour's last bit where the fp32 number lies on the edge of two."""
    reference, ours = torch.Generator("cpu").manual_seed(9), TorchCpuGenerator(9)
    for _ in range(2):
        expected = torch.randn(size, generator=reference, dtype=torch.bfloat16).float().numpy()
        drawn = ours.randn((size,), "bf16")
        assert (drawn != expected).mean() < 1e-5
        np.testing.assert_allclose(drawn, expected, rtol=2**-7, atol=1e-6)
        np.testing.assert_array_equal(ours.rand((5,)), torch.rand(5, generator=reference).numpy())


def test_only_the_low_32_bits_of_a_seed_count_as_in_torch():
    np.testing.assert_array_equal(
        TorchCpuGenerator(2**32 + 5).randn((100,)), TorchCpuGenerator(5).randn((100,))
    )


def test_other_types_are_refused():
    with pytest.raises(InputError, match="noise of type 'f16': must be f32 or bf16"):
        TorchCpuGenerator(0).randn((3,), "f16")


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_out_of_range(seed):
    with pytest.raises(InputError, match=rf"seed {seed}: must be between 0 and 2\*\*64 - 1"):
        TorchCpuGenerator(seed)


def test_a_million_numbers_are_drawn_in_whole_arrays():
    """What would make it slow is a step of the interpreter per number: there are a few per call."""
    generator, steps = TorchCpuGenerator(0), 0

    def count(_frame, _event, _argument):
        nonlocal steps
        steps += 1
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        generator.randn((1_000_000,))
    finally:
        sys.settrace(before)
    assert 0 < steps < 1000
