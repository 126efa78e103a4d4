"""Schedules of sigmas: the noise levels at which the transformer is called, from 1 down.

A schedule is a float32 array without the trailing 0; the denoising loop ends there. Everything is computed in
float64 and rounded once: for long videos shifted sigmas are close to 1, where the reference's fp32 is
inexact (by 1e-4 at 27 000 tokens) and finally makes them equal. Reference: official
`RectifiedFlowScheduler`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ltxrt.engines.errors import BundleError, InputError, setting
from ltxrt.engines.parsing.text import LIMIT, clipped, quoted

# The shift grows linearly with the number of tokens and passes through these two points; it is not clamped.
SHIFT_TOKENS = (1024, 4096)
SHIFT_VALUES = (0.95, 2.05)
SAME_SIGMA = 1e-6  # sigmas closer than this are one sigma


class SchedulerFacts(Protocol):
    """A checkpoint's own schedule.

    `shift` is "sd3" or None; a shifted schedule is stretched to end at `terminal`, where that is not None;
    `allowed_steps` are the only sigmas that the checkpoint was trained on, None for any.
    """

    @property
    def sampler(self) -> str: ...

    @property
    def shift(self) -> str | None: ...

    @property
    def terminal(self) -> float | None: ...

    @property
    def allowed_steps(self) -> tuple[float, ...] | None: ...


def sigmas(facts: SchedulerFacts, steps: int, tokens: int) -> NDArray[np.float32]:
    """The checkpoint's own schedule, (steps,) float32, for a video of `tokens` tokens.

    Raises InputError for a number of steps the checkpoint does not allow.
    """
    schedule = _schedule(facts, steps, tokens)
    try:
        check_allowed(schedule, facts.allowed_steps)
    except InputError as error:
        raise InputError(f"{setting('steps')} {steps}: {error}{_allowed_counts(facts, tokens)}") from None
    return schedule


def explicit(timesteps: Sequence[float], allowed: Sequence[float] | None = None) -> NDArray[np.float32]:
    """A schedule given by the user, as float32: descending, in (0, 1], allowed by the checkpoint."""
    name = setting("timesteps")
    if len(timesteps) == 0:
        raise InputError(f"{name} is empty; give descending values such as 1.0,0.975,0.725")
    shown = clipped(", ".join(f"{t:g}" if abs(t) < 1e300 else quoted(t) for t in timesteps), LIMIT)
    inside = all(0 < t <= 1 for t in timesteps)  # NaN compares false
    schedule = np.asarray(timesteps if inside else (), np.float32)
    if not (inside and (schedule > 0).all()):
        raise InputError(
            f"{name} {shown}: each must be greater than 0 and at most 1; the end at 0 is implied"
        )
    if not (np.diff(schedule) < -SAME_SIGMA).all():
        raise InputError(f"{name} {shown}: must descend, each smaller than the one before")
    check_allowed(schedule, allowed)
    return schedule


def skip(schedule: NDArray[np.float32], initial: int, final: int) -> NDArray[np.float32]:
    """`schedule` (n,) without its first `initial` and last `final` sigmas: a schedule of its own.

    Its last sigma therefore steps to 0, across the ones left out. Raises InputError where none would remain.
    """
    given = f"{setting('skip_initial')} {initial} and {setting('skip_final')} {final}"
    if initial < 0 or final < 0:
        raise InputError(f"{given}: neither may be below 0")
    if initial + final >= schedule.size:
        raise InputError(
            f"{given} leave none of {schedule.size} steps; skip at most {schedule.size - 1} together, "
            f"or give more {setting('steps')}"
        )
    return schedule[initial : schedule.size - final]


def part(schedule: NDArray[np.float32], strength: float) -> NDArray[np.float32]:
    """The last `strength` · n, rounded down, of a schedule (n,): the steps that are applied to a source
    video.

    diffusers' `denoise_strength` (`pipeline_ltx_condition.py`). Raises InputError where no step would remain.
    """
    count = min(int(schedule.size * strength), schedule.size)
    if count < 1:
        raise InputError(
            f"{setting('denoise_strength')} {strength:g} of {schedule.size} steps leaves none; "
            f"give at least {math.ceil(1e4 / schedule.size) / 1e4:g}, or more steps"
        )
    return schedule[schedule.size - count :]


def check_allowed(schedule: NDArray[np.float32], allowed: Sequence[float] | None) -> None:
    """Raise InputError for a sigma that, rounded to 4 decimals, the checkpoint was not trained on."""
    if allowed is None:
        return
    known = {round(a, 4) for a in allowed}
    for sigma in map(float, schedule):
        if round(sigma, 4) not in known:
            listed = ", ".join(f"{a:g}" for a in allowed)
            raise InputError(f"sigma {sigma:.4f} is not one this checkpoint was trained on ({listed})")


def next_sigma(schedule: NDArray[np.float32], timesteps: NDArray[np.float32]) -> NDArray[np.float32]:
    """For each timestep, the largest of `schedule` and 0 that lies below it; any shape, same shape back.

    A timestep need not be in the schedule: a token held at 1 − strength steps to the next lower sigma.
    """
    ascending = np.concatenate([np.zeros(1, np.float32), schedule[::-1]])
    below = np.searchsorted(ascending, timesteps - np.float32(SAME_SIGMA), side="left") - 1
    return ascending[np.maximum(below, 0)]


def uniform(steps: int) -> NDArray[np.float64]:
    """`steps` sigmas evenly from 1 to 1 / steps."""
    _check_steps(steps)
    return np.linspace(1.0, 1.0 / steps, steps)


def linear_quadratic(
    steps: int, threshold: float = 0.025, linear_steps: int | None = None
) -> NDArray[np.float64]:
    """`linear_steps` (half of them) equal steps from 1 to 1 − threshold, then quadratically larger ones.

    The quadratic part starts with the linear part's slope and ends at 0.
    """
    _check_steps(steps)
    if steps == 1:
        return np.ones(1)
    linear = steps // 2 if linear_steps is None else linear_steps
    if not 0 < linear < steps:
        raise InputError(f"linear steps {linear}: must be between 1 and {steps - 1} for {steps} steps")
    rest, gap = steps - linear, linear - threshold * steps
    square = gap / (linear * rest**2)
    slope = threshold / linear - 2 * gap / rest**2
    index = np.arange(steps, dtype=np.float64)
    curve = square * index**2 + slope * index + square * linear**2
    return 1.0 - np.where(index < linear, index * threshold / linear, curve)


def sd3_shift(schedule: NDArray[np.float64], tokens: int) -> NDArray[np.float64]:
    """Move sigmas up, the more the longer the video: s → e^μ / (e^μ + 1/s − 1), μ linear in `tokens`."""
    slope = (SHIFT_VALUES[1] - SHIFT_VALUES[0]) / (SHIFT_TOKENS[1] - SHIFT_TOKENS[0])
    shift = math.exp(slope * tokens + (SHIFT_VALUES[0] - slope * SHIFT_TOKENS[0]))
    return shift / (shift + (1.0 / schedule - 1.0))


def stretch_to_terminal(schedule: NDArray[np.float64], terminal: float) -> NDArray[np.float64]:
    """Stretch a schedule that starts at 1 so that it ends at `terminal`."""
    if schedule[-1] == 1.0:
        raise InputError(
            f"{setting('steps')} {schedule.size}: this checkpoint's schedule runs from 1 to {terminal:g}, "
            "which takes 2 or more steps and a video of sensible length"
        )
    return 1.0 - (1.0 - schedule) * ((1.0 - terminal) / (1.0 - schedule[-1]))


def _schedule(facts: SchedulerFacts, steps: int, tokens: int) -> NDArray[np.float32]:
    samplers = {"uniform": uniform, "linear_quadratic": linear_quadratic}
    if facts.sampler not in samplers or facts.shift not in (None, "sd3"):
        raise BundleError(
            f"scheduler: sampler {facts.sampler!r} with shift {facts.shift!r} is not known; "
            "known are uniform and linear_quadratic, with shift sd3 or none"
        )
    schedule = samplers[facts.sampler](steps)
    if facts.shift == "sd3":
        schedule = sd3_shift(schedule, tokens)
    if facts.terminal is not None:
        schedule = stretch_to_terminal(schedule, facts.terminal)
    return schedule.astype(np.float32)


def _allowed_counts(facts: SchedulerFacts, tokens: int) -> str:
    """The step counts whose schedules the checkpoint allows, as the end of a message."""
    counts = []
    for steps in range(1, len(facts.allowed_steps or ()) + 1):
        try:
            check_allowed(_schedule(facts, steps, tokens), facts.allowed_steps)
        except InputError:
            continue
        counts.append(str(steps))
    return (
        f"; allowed are {', '.join(counts)} steps"
        if counts
        else f"; give {setting('timesteps')} from that list"
    )


def _check_steps(steps: int) -> None:
    if steps < 1:
        raise InputError(f"{setting('steps')} {steps}: must be at least 1")
