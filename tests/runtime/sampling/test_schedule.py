import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.ltx.pipeline_ltx import calculate_shift
from diffusers.pipelines.ltx.pipeline_ltx_condition import linear_quadratic_schedule

from ltxrt.engines.errors import BundleError, InputError, within
from ltxrt.engines.families.ltxv.facts import SchedulerFacts
from ltxrt.runtime.sampling.schedule import (
    explicit,
    linear_quadratic,
    next_sigma,
    sd3_shift,
    sigmas,
    skip,
    stretch_to_terminal,
    uniform,
)

DISTILLED = (1.0, 0.9937, 0.9875, 0.9812, 0.975, 0.9094, 0.725, 0.4219)
UNIFORM_SD3 = SchedulerFacts("uniform", "sd3", 0.1, None)
QUADRATIC = SchedulerFacts("linear_quadratic", None, None, None)
QUADRATIC_DISTILLED = SchedulerFacts("linear_quadratic", None, None, DISTILLED)

LQ40_TAIL = (
    "0.975 0.971375 0.963 0.949875 0.932 0.909375 0.882 0.849875 0.813 0.771375 "
    "0.725 0.673875 0.618 0.557375 0.492 0.421875 0.347 0.267375 0.183 0.093875"
)
LQ30_TAIL = (
    "0.975 0.969111 0.954778 0.932 0.900778 0.861111 0.813 0.756444 0.691444 "
    "0.618 0.536111 0.445778 0.347 0.239778 0.124111"
)


def values(text):
    return [float(v) for v in text.split()]


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (1, [1]),
        (2, [1, 0.975]),
        (3, [1, 0.975, 0.71875]),
        (4, [1, 0.9875, 0.975, 0.725]),
        (8, [1, 0.99375, 0.9875, 0.98125, 0.975, 0.909375, 0.725, 0.421875]),
    ],
)
def test_linear_quadratic_golden_values(steps, expected):
    np.testing.assert_allclose(linear_quadratic(steps), expected, atol=1e-12)


@pytest.mark.parametrize(
    ("steps", "tail"),
    [
        (20, values("0.975 0.963 0.932 0.882 0.813 0.725 0.618 0.492 0.347 0.183")),
        (30, values(LQ30_TAIL)),
        (40, values(LQ40_TAIL)),
    ],
)
def test_linear_quadratic_tails(steps, tail):
    np.testing.assert_allclose(linear_quadratic(steps)[steps // 2 :], tail, atol=6e-7)


@pytest.mark.parametrize("steps", [2, 3, 7, 8, 25, 30, 40, 99])
def test_linear_quadratic_is_the_references_in_fp32(steps):
    reference = linear_quadratic_schedule(steps).numpy()
    np.testing.assert_array_equal(sigmas(QUADRATIC, steps, 6144), reference.astype(np.float32))


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (8, values("1 0.97391 0.93983 0.89342 0.82651 0.72165 0.53381 0.1")),
        (
            20,
            values(
                "1 0.9946 0.98863 0.98202 0.97464 0.96635 0.95699 0.94632 0.93404 0.91977 "
                "0.90298 0.88294 0.85859 0.82839 0.78993 0.73931 0.66964 0.5677 0.40433 0.1"
            ),
        ),
    ],
)
def test_uniform_sd3_golden_values(steps, expected):
    np.testing.assert_allclose(sigmas(UNIFORM_SD3, steps, 6144), expected, atol=6e-6)


@pytest.mark.parametrize(
    ("tokens", "blur"), [(64, 2e-7), (5280, 1e-6), (6144, 1e-6), (13376, 2e-6), (27588, 2e-4)]
)
@pytest.mark.parametrize("steps", [2, 20, 40])
def test_uniform_sd3_against_diffusers(steps, tokens, blur):
    """`blur` is what fp32 rounding does to the reference, more the closer its shifted sigmas are to 1."""
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift_terminal=0.1)
    mu = calculate_shift(tokens, 1024, 4096, 0.95, 2.05)
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), mu=mu)
    ours = sigmas(UNIFORM_SD3, steps, tokens)
    assert ours.dtype == np.float32 and ours.shape == (steps,)
    np.testing.assert_allclose(ours, scheduler.sigmas[:-1].numpy(), rtol=0, atol=blur)


def test_a_very_long_video_still_has_distinct_sigmas():
    schedule = sigmas(UNIFORM_SD3, 40, 80_000)
    assert schedule[0] == 1 and schedule[-1] == np.float32(0.1)
    assert (np.diff(schedule) < -1e-6).all()


def test_the_parts_of_the_shift():
    np.testing.assert_allclose(uniform(4), [1, 0.75, 0.5, 0.25])
    half = sd3_shift(np.array([1.0, 0.5]), 6144)
    np.testing.assert_allclose(half, [1, 1 / (1 + np.exp(-2.783333))], atol=1e-6)
    np.testing.assert_allclose(stretch_to_terminal(np.array([1, 0.8, 0.6]), 0.1), [1, 0.55, 0.1])


def test_a_distilled_checkpoint_allows_its_own_schedules():
    for steps in (1, 2, 4, 8):
        assert sigmas(QUADRATIC_DISTILLED, steps, 6144).shape == (steps,)


def test_a_distilled_checkpoint_refuses_others_and_lists_what_it_allows():
    message = r"steps 20: sigma 0.9975 .*\(1, 0.9937, .*0.4219\); allowed are 1, 2, 4, 8 steps"
    with pytest.raises(InputError, match=message):
        sigmas(QUADRATIC_DISTILLED, 20, 6144)
    with pytest.raises(InputError, match=r"steps 3: sigma 0.7188"):
        sigmas(QUADRATIC_DISTILLED, 3, 6144)


def test_where_no_count_fits_the_message_points_to_timesteps():
    facts = SchedulerFacts("uniform", None, None, (0.9, 0.5))
    with pytest.raises(InputError, match="give timesteps from that list"):
        sigmas(facts, 2, 6144)


@pytest.mark.parametrize("group", ["", "second_pass"])
def test_messages_name_what_the_user_gave(group):
    for call, field, message in (
        (lambda: sigmas(QUADRATIC_DISTILLED, 20, 100), "steps", "steps 20: sigma"),
        (lambda: sigmas(UNIFORM_SD3, 1, 6144), "steps", "steps 1: this checkpoint's"),
        (lambda: explicit([2.0]), "timesteps", "timesteps 2: each"),
        (lambda: explicit([10**400]), "timesteps", "timesteps a number of more than 80 digits: each"),
        (lambda: explicit([1e-50]), "timesteps", "timesteps 1e-50: each"),
        (lambda: skip(sigmas(QUADRATIC, 3, 100), 0, 3), "skip_initial", "skip_initial 0 and "),
    ):
        prefix = f"{group}." if group else ""
        with pytest.raises(InputError, match=prefix + message) as error, within(group):
            call()
        assert error.value.field == prefix + field


def test_explicit_timesteps():
    np.testing.assert_array_equal(explicit([1, 0.9, 0.5]), np.array([1, 0.9, 0.5], np.float32))
    assert explicit([0.9094, 0.725, 0.4219], DISTILLED).dtype == np.float32


@pytest.mark.parametrize(
    ("timesteps", "message"),
    [
        ([], "timesteps is empty"),
        ([1.0, 0.5, 0.0], "timesteps 1, 0.5, 0: each must be greater than 0"),
        ([1000.0, 500.0], "timesteps 1000, 500: each must be greater than 0 and at most 1"),
        ([float("nan")], "greater than 0"),
        ([0.5, 1.0], "timesteps 0.5, 1: must descend"),
        ([0.5, 0.5], "must descend"),
    ],
)
def test_explicit_timesteps_that_are_no_schedule(timesteps, message):
    with pytest.raises(InputError, match=message):
        explicit(timesteps)


def test_explicit_timesteps_a_distilled_checkpoint_does_not_know():
    with pytest.raises(InputError, match=r"sigma 0.9000 is not one this checkpoint"):
        explicit([1.0, 0.9], DISTILLED)


@pytest.mark.parametrize("steps", [0, -3])
@pytest.mark.parametrize("facts", [UNIFORM_SD3, QUADRATIC, QUADRATIC_DISTILLED])
def test_a_step_count_below_one(facts, steps):
    with pytest.raises(InputError, match=rf"steps {steps}: must be at least 1"):
        sigmas(facts, steps, 6144)


def test_one_step_cannot_be_stretched_to_a_terminal():
    with pytest.raises(InputError, match=r"steps 1: .* from 1 to 0.1, which takes 2 or more steps"):
        sigmas(UNIFORM_SD3, 1, 6144)


def test_linear_steps_out_of_range():
    with pytest.raises(InputError, match="linear steps 4: must be between 1 and 3"):
        linear_quadratic(4, linear_steps=4)


@pytest.mark.parametrize("facts", [SchedulerFacts("karras", None, None, None)])
def test_an_unknown_schedule_is_the_bundles_fault(facts):
    with pytest.raises(BundleError, match="sampler 'karras'"):
        sigmas(facts, 8, 6144)
    with pytest.raises(BundleError, match="shift 'exponential'"):
        sigmas(SchedulerFacts("uniform", "exponential", None, None), 8, 6144)


def test_next_sigma_is_the_largest_lower_one_of_the_list_and_zero():
    schedule = sigmas(QUADRATIC, 8, 6144)
    timesteps = np.array([[1.0, 0.99375, 0.421875, 0.3, 0.0, 0.72500005, 0.8]], np.float32)
    padded = torch.from_numpy(np.append(schedule, np.float32(0)))[:, None]
    lower = (padded < torch.from_numpy(timesteps) - 1e-6) * padded
    np.testing.assert_array_equal(next_sigma(schedule, timesteps)[0], lower.max(dim=0).values.numpy())
    assert next_sigma(schedule, timesteps)[0].tolist() == pytest.approx(
        [0.99375, 0.9875, 0, 0, 0, 0.421875, 0.725]
    )


def test_skipped_steps_leave_a_schedule_whose_end_is_zero():
    schedule = sigmas(QUADRATIC, 30, 6144)
    first, second = skip(schedule, 0, 3), skip(schedule, 17, 0)
    assert first.shape == (27,) and second.shape == (13,)
    assert first[-1] == pytest.approx(0.445778, abs=1e-6)
    assert second[0] == pytest.approx(0.954778, abs=1e-6)
    np.testing.assert_array_equal(skip(schedule, 2, 3), schedule[2:27])
    np.testing.assert_array_equal(skip(schedule, 0, 0), schedule)
    assert next_sigma(first, first)[-1] == 0
    np.testing.assert_array_equal(next_sigma(first, first)[:-1], first[1:])


@pytest.mark.parametrize(
    ("initial", "final", "message"),
    [
        (-1, 0, "skip_initial -1 and skip_final 0: neither may be below 0"),
        (0, -2, "neither may be below 0"),
        (8, 0, "leave none of 8 steps; skip at most 7 together, or give more steps"),
        (5, 3, "skip_initial 5 and skip_final 3 leave none of 8 steps"),
        (0, 100, "leave none of 8"),
    ],
)
def test_skipping_too_many_steps(initial, final, message):
    with pytest.raises(InputError, match=message):
        skip(sigmas(QUADRATIC, 8, 6144), initial, final)
