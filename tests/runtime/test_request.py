import dataclasses

import numpy as np
import pytest

from ltxrt.engines.errors import InputError
from ltxrt.engines.facts import Preset, VaeFacts
from ltxrt.runtime.request import LIMITS, Request, complete

VAE = VaeFacts(4, 32, 8, (0.0,) * 4, (1.0,) * 4, True, ())
PRESET = Preset(40, 3.0, 480, 704, 121, 25.0, "blurry", 256, 0.05, 0.025, 0.15, False, None)


def test_preset_fills_what_is_left_open():
    settings = complete(Request("fog", steps=7), PRESET, VAE)
    assert (settings.steps, settings.height, settings.negative_prompt) == (7, 480, "blurry")
    assert (settings.max_tokens, settings.guided) == (256, True)


def test_diffusers_reads_fewer_tokens():
    assert complete(Request("fog", reference="diffusers"), PRESET, VAE).max_tokens == 128


def test_an_empty_negative_prompt_is_the_user_s_and_stays():
    assert complete(Request("fog", negative_prompt=""), PRESET, VAE).negative_prompt == ""


@pytest.mark.parametrize("prompt", ["", "   ", "\n"])
def test_empty_prompt_is_refused(prompt):
    with pytest.raises(InputError, match="--prompt is empty"):
        complete(Request(prompt), PRESET, VAE)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_frames": 20}, "--num-frames 20: must be 8k\\+1; nearest are 17 and 25"),
        ({"height": 100}, "--height 100: must be a multiple of 32; nearest are 96 and 128"),
        ({"width": 33}, "--width 33: must be a multiple of 32; nearest are 32 and 64"),
        ({"height": 0}, "--height 0: must be between 1 and 8192"),
        ({"num_frames": -7}, "--num-frames -7: must be between"),
        ({"width": 10**9}, "--width 1000000000: must be between"),
        ({"steps": 0}, "--steps 0: must be between 1 and 1000"),
        ({"frame_rate": 0.0}, "--frame-rate 0.0: must be between"),
        ({"frame_rate": float("nan")}, "--frame-rate nan: must be between"),
        ({"guidance_scale": float("inf")}, "--guidance-scale inf"),
        ({"guidance_scale": -1.0}, "--guidance-scale -1.0"),
        ({"seed": -1}, "--seed -1: must be between"),
        ({"seed": 2**64}, "--seed 18446744073709551616: must be between"),
        ({"image_strength": 1.5}, "--image-strength 1.5: must be between 0 and 1"),
        ({"reference": "comfy"}, "--reference 'comfy': must be one of official, diffusers"),
    ],
)
def test_wrong_values_get_one_sentence(values, message):
    with pytest.raises(InputError, match=message):
        complete(Request("fog", **values), PRESET, VAE)


@pytest.mark.parametrize("name", LIMITS)
def test_limits_themselves_are_allowed_where_they_are_sizes(name):
    if name in ("height", "width", "num_frames"):
        with pytest.raises(InputError, match="nearest"):
            complete(Request("fog", **{name: 2}), PRESET, VAE)
        return
    for value in LIMITS[name]:
        complete(Request("fog", **{name: value}), PRESET, VAE)


def test_noise_of_another_shape_or_dtype_is_refused():
    size = {"height": 64, "width": 96, "num_frames": 9}
    good = np.zeros((1, 4, 2, 2, 3), np.float32)
    assert complete(Request("fog", noise=good, **size), PRESET, VAE).noise is good
    for bad in (good.astype(np.float64), good[:, :, :1]):
        with pytest.raises(InputError, match=r"noise .*must be float32 \(1, 4, 2, 2, 3\)"):
            complete(Request("fog", noise=bad, **size), PRESET, VAE)


def test_timesteps_set_the_steps_and_exclude_them():
    settings = complete(Request("fog", timesteps=(1.0, 0.5)), PRESET, VAE)
    assert (settings.steps, settings.timesteps) == (2, (1.0, 0.5))
    with pytest.raises(InputError, match="--steps and --timesteps exclude each other"):
        complete(Request("fog", timesteps=(1.0,), steps=3), PRESET, VAE)


def test_a_preset_s_timesteps_yield_to_steps():
    preset = dataclasses.replace(PRESET, timesteps=(1.0, 0.9, 0.5))
    assert complete(Request("fog"), preset, VAE).steps == 3
    settings = complete(Request("fog", steps=9), preset, VAE)
    assert (settings.steps, settings.timesteps) == (9, None)
