"""Percent and time left, on a clock of the test's own."""

from __future__ import annotations

import pytest

from ltxrt.engines.progress import Counted, Progress
from ltxrt.engines.terminal.estimate import Estimate


def estimate(**seconds):
    found = Estimate(0.0)
    found.expect(seconds)
    return found


def test_nothing_is_known_of_a_job_that_expects_nothing():
    job = Estimate(0.0)
    stage = job.update(Progress("work", 2, 10, "step"), 1.0)
    assert (job.left(1.0), job.fraction(1.0), stage.fraction(1.0, 1.0)) == (None, None, 0.2)


def test_a_job_as_expected_goes_from_nothing_to_all():
    job = estimate(first=10.0, second=30.0)
    job.update(Progress("first"), 0.0)
    assert (job.left(0.0), job.fraction(0.0)) == (40.0, 0.0)
    assert job.left(5.0) == pytest.approx(35.0)
    job.update(Progress("second", 0, 3, "step"), 10.0)
    assert job.fraction(10.0) == pytest.approx(0.25)
    job.update(Progress("second", 1, 3, "step"), 20.0)
    job.update(Progress("second", 2, 3, "step"), 30.0)
    assert (job.left(30.0), job.fraction(30.0)) == (pytest.approx(10.0), pytest.approx(0.75))
    job.update(Progress("second", 3, 3, "step"), 40.0)
    assert (job.left(40.0), job.fraction(40.0)) == (0.0, 0.99)
    assert job.running() == []
    assert job.measured() == {"first": 1.0, "second": 1.0}


def test_what_stages_take_here_is_expected_of_those_that_follow():
    job = estimate(first=10.0, second=10.0)
    job.update(Progress("first"), 0.0)
    job.update(Progress("second"), 40.0)  # four times as long
    assert 30.0 < job.left(40.0) < 40.0


def test_the_pace_of_steps_does_not_count_what_was_before_the_first():
    job = Estimate(0.0)
    for now, done in ((0.0, 0), (20.0, 1), (21.0, 2), (22.0, 3)):
        stage = job.update(Progress("steps", done, 10, "step"), now)
    assert stage.seconds_per_unit == pytest.approx(1.0)
    assert stage.left(22.0, 1.0) == pytest.approx(7.0)
    assert stage.left(22.5, 1.0) == pytest.approx(6.5)  # also between two reports


def test_an_overdue_stage_has_some_time_left():
    job = estimate(only=10.0)
    job.update(Progress("only"), 0.0)
    assert job.left(100.0) > 0 and job.fraction(100.0) < 1


@pytest.mark.parametrize(("pace", "kept"), [(0.55, True), (1.0, False)])
def test_percent_is_not_taken_back_for_a_little_and_is_for_much(pace, kept):
    job = estimate(first=50.0, second=50.0)
    job.update(Progress("first"), 0.0)
    job.update(Progress("second", 0, 100, "tile"), 50.0)
    before = job.fraction(50.0)
    for done in (1, 2):
        job.update(Progress("second", done, 100, "tile"), 50.0 + done * pace)
    assert (job.fraction(50.0 + 2 * pace) == before) is kept
    assert job.fraction(50.0 + 2 * pace) <= before


def test_stages_run_alongside_each_other_until_one_is_over():
    job = Estimate(0.0)
    job.update(Progress("loading"), 0.0)
    job.update(Progress("decoding", 0, 2, "tile"), 1.0)
    assert [stage.name for stage in job.running()] == ["decoding"]  # loading has no units to complete
    job.update(Progress("decoding", 1, 2, "tile"), 2.0)
    job.update(Progress("writing", 1, 9, "frame"), 3.0)
    assert [stage.name for stage in job.running()] == ["decoding", "writing"]
    job.update(Progress("decoding", 2, 2, "tile"), 4.0)
    assert [stage.name for stage in job.running()] == ["writing"]


def test_frames_that_waited_for_the_decoder_do_not_slow_those_that_follow():
    job = estimate(decoding=40.0)
    job.update(Progress("decoding", 0, 2, "tile"), 0.0)
    for done in range(1, 13):
        job.update(Progress("writing", done, 49, "frame"), 20.0)
    job.update(Progress("decoding", 2, 2, "tile"), 40.0)
    assert (job.left(41.0), job.fraction(41.0)) == (0.0, 0.99)
    job.update(Progress("writing", 14, 49, "frame"), 41.0)  # two in a second, after 20 of none
    assert job.left(41.0) == pytest.approx(17.5)


def test_a_stage_that_was_given_up_does_not_stay():
    job = Estimate(0.0)
    job.update(Progress("video 1", 3, 8, "step"), 1.0)  # failed
    job.update(Progress("video 2", 0, 8, "step"), 2.0)
    job.update(Progress("video 2", 8, 8, "step"), 3.0)
    assert job.running() == []


def test_a_stage_may_come_again():
    job = estimate(step=1.0)
    job.update(Progress("step", 1, 1), 1.0)
    again = job.update(Progress("step", 0, 1), 5.0)
    assert (again.running, again.began) == (True, 5.0)


def test_counted_units_are_reported_from_the_beginning():
    told = []
    done = Counted(told.append, "hashing", 3, "byte")
    done(2)
    done()
    assert [(one.stage, one.done, one.total, one.unit) for one in told] == [
        ("hashing", 0, 3, "byte"),
        ("hashing", 2, 3, "byte"),
        ("hashing", 3, 3, "byte"),
    ]
