"""The verdict against everything that Polygraphy's own would let through, and its metrics against NumPy."""

import math
from collections import OrderedDict

import numpy as np
import pytest
from polygraphy.comparator import Comparator, CosineSimilarityCompareFunc, IterationResult, RunResults

from ltxrt.parity.check import compare
from ltxrt.parity.check.results import Tolerance

ALLOWED = Tolerance(1e-2, 1 - 1e-4, 40.0, "a test")
RNG = np.random.default_rng(0)
GOOD = {"velocity": RNG.standard_normal((2, 30, 8), dtype=np.float32)}
NEAR = {"velocity": GOOD["velocity"] + 1e-3 * RNG.standard_normal((2, 30, 8), dtype=np.float32)}


def with_value(value):
    array = GOOD["velocity"].copy()
    array[0, 3, 1] = value
    return {"velocity": array}


def constant(value):
    return {"velocity": np.full((2, 30, 8), value, np.float32)}


def polygraphy_says(theirs, ours):
    """The verdict of Polygraphy itself on runs of one iteration each, by cosine and its check of values."""
    results = RunResults()
    for name, outputs in (("a", theirs), ("b", ours)):
        results.append((name, [IterationResult(OrderedDict(outputs), runner_name=name)]))
    compared = bool(Comparator.compare_accuracy(results, compare_func=CosineSimilarityCompareFunc(0.9)))
    return compared and Comparator.validate(results)


@pytest.mark.parametrize(
    ("theirs", "ours", "problem"),
    [
        (GOOD, {}, "outputs are named nothing"),
        ({}, {}, "outputs are named nothing, the reference's nothing"),
        (GOOD, {"other": GOOD["velocity"]}, r"outputs are named \['other'\], the reference's \['velocity'\]"),
        (GOOD, {**GOOD, "more": GOOD["velocity"]}, r"\['more', 'velocity'\]"),
        (GOOD, {"velocity": GOOD["velocity"].astype(np.float16)}, "velocity is float16"),
        (GOOD, {"velocity": GOOD["velocity"].reshape(2, 8, 30)}, r"velocity is float32 \(2, 8, 30\)"),
        (GOOD, {"velocity": GOOD["velocity"][:1]}, r"velocity is float32 \(1, 30, 8\)"),
        ({"velocity": np.zeros((0, 8), np.float32)}, {"velocity": np.zeros((0, 8), np.float32)}, "is empty"),
        (GOOD, with_value(np.inf), "velocity holds NaN or infinities"),
        (GOOD, with_value(np.nan), "velocity holds NaN or infinities"),
        (with_value(np.inf), with_value(np.inf), "velocity of the reference holds NaN or infinities"),
        (constant(3), constant(3), "is the same number everywhere"),
        (constant(0), constant(0), "is the same number everywhere"),
        (GOOD, {"velocity": 3 * GOOD["velocity"]}, r"relative_l2 2\.0.* where 0\.01 is allowed"),
        (GOOD, {"velocity": GOOD["velocity"] + 1}, "relative_l2 .* where 0.01 is allowed"),
        (GOOD, {"velocity": GOOD["velocity"][:, ::-1].copy()}, "cosine"),
        (GOOD, constant(0), "relative_l2"),
    ],
)
def test_every_wrong_pair_fails(theirs, ours, problem):
    metrics, problems = compare.compare("velocity", theirs, ours, ALLOWED)
    assert problems
    assert any(__import__("re").search(problem, text) for text in problems), problems
    assert metrics is None or metrics.relative_l2 > ALLOWED.relative_l2


@pytest.mark.parametrize(
    "ours",
    [{"other": GOOD["velocity"]}, {"velocity": GOOD["velocity"].astype(np.float16)},
     {"velocity": 3 * GOOD["velocity"]}, with_value(GOOD["velocity"][0, 3, 1])],
)  # fmt: skip
def test_polygraphy_itself_lets_these_through(ours):
    """What makes the guards necessary; where this fails, Polygraphy has become stricter."""
    assert polygraphy_says(GOOD, ours)


@pytest.mark.parametrize(
    ("theirs", "ours", "problem"),
    [
        ([], [], "nothing ran on one side"),
        ([GOOD], [], "nothing ran on one side"),
        ([], [GOOD], "nothing ran on one side"),
        ([GOOD], [GOOD, GOOD], "the reference made 1 calls, the engine 2"),
        ([GOOD, GOOD], [GOOD], "the reference made 2 calls, the engine 1"),
    ],
)
def test_runs_that_are_no_pair_fail(theirs, ours, problem):
    (text,) = compare.problems_of(theirs, ours)
    assert problem in text


def test_what_is_near_passes_with_metrics_that_numpy_confirms():
    metrics, problems = compare.compare("velocity", GOOD, NEAR, ALLOWED)
    assert problems == [] and compare.problems_of([GOOD], [NEAR]) == []
    reference = GOOD["velocity"].astype(np.float64)
    a, b = ((side["velocity"] - reference.mean()) / reference.std() for side in (GOOD, NEAR))
    error = np.sqrt(np.mean((a - b) ** 2))
    assert metrics.relative_l2 == pytest.approx(error)
    assert metrics.cosine == pytest.approx((a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b))
    assert metrics.psnr == pytest.approx(20 * math.log10(a.max() / error))
    assert metrics.snr == pytest.approx(-20 * math.log10(error))
    assert metrics.largest == pytest.approx(np.abs(a - b).max())


def test_figures_do_not_depend_on_mean_or_scale():
    """Polygraphy's PSNR of equal noise moves with the data's mean."""
    plain, _ = compare.compare("velocity", GOOD, NEAR, ALLOWED)
    moved = [{"velocity": (side["velocity"] * 50 + 700).astype(np.float64)} for side in (GOOD, NEAR)]
    far, _ = compare.compare("velocity", *moved, ALLOWED)
    assert far.psnr == pytest.approx(plain.psnr, abs=1e-3)
    assert far.relative_l2 == pytest.approx(plain.relative_l2, rel=1e-4)


def test_equal_outputs_have_no_decibels():
    metrics, problems = compare.compare("velocity", GOOD, GOOD, ALLOWED)
    assert problems == [] and metrics.psnr is None and metrics.snr is None and metrics.relative_l2 == 0


def test_error_by_token_finds_the_token():
    theirs = GOOD["velocity"]
    ours = theirs.copy()
    ours[:, 7] += 1
    along = compare.by_token(theirs, ours, axis=1)
    assert len(along) == 30 and np.argmax(along) == 7 and sum(x > 0 for x in along) == 1
    assert len(compare.by_token(theirs, ours, axis=1, pieces=4)) == 4
