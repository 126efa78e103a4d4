import numpy as np
import pytest

from ltxrt.engines.errors import NumericsError
from ltxrt.runtime.sampling.numerics import check_finite


def video():
    return np.random.default_rng(0).standard_normal((1, 3, 9, 4, 4), dtype=np.float32)


def test_sound_values_pass():
    check_finite(video(), "vae_decoder", "the decode", frame_axis=2)
    check_finite(np.ones((1, 1), np.float32), "transformer", "step 1 of 8")
    check_finite(np.array([0, 3e38], np.float32), "transformer", "step 1 of 8")


def test_nan_and_inf_are_counted_and_named_with_component_and_place():
    values = video()
    values[0, 0, 4] = np.nan
    values[0, 1, 6, 0, 0] = -np.inf
    message = (
        r"^transformer returned 16 NaN and 1 Inf of 432 values at step 3 of 30; if it runs in fp16 or fp8, .*"
        r"run it in fp32 or bf16; if it does already, look for damaged weights with ltx-export verify$"
    )
    with pytest.raises(NumericsError, match=message):
        check_finite(values, "transformer", "step 3 of 30")


@pytest.mark.parametrize(("bad", "name"), [(np.nan, "NaN"), (np.inf, "Inf"), (-np.inf, "Inf")])
@pytest.mark.parametrize("axis", [2, -3])
def test_the_first_bad_frame_is_named(bad, name, axis):
    values = video()
    values[0, 2, 5:, 1, 3] = bad
    with pytest.raises(NumericsError, match=rf"4 {name} of 432 values, from frame 5 on, at the decode"):
        check_finite(values, "vae_decoder", "the decode", frame_axis=axis)


def test_constant_values_are_a_failure():
    with pytest.raises(NumericsError, match=r"text_encoder returned only the value 0 at the prompt"):
        check_finite(np.zeros((1, 4, 8), np.float32), "text_encoder", "the prompt")


def test_an_empty_array_is_a_failure():
    with pytest.raises(NumericsError, match=r"empty array \(1, 0, 8\)"):
        check_finite(np.zeros((1, 0, 8), np.float32), "transformer", "step 1 of 8")
