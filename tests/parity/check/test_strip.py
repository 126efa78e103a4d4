"""The strip of an end-to-end run: both videos and their difference, each with a label."""

import numpy as np
import pytest
from PIL import Image

from ltxrt.parity.check import strip


@pytest.mark.parametrize(
    ("difference", "gain", "shown"),
    [(0, 0, 128), (1, 64, 192), (-1, 64, 64), (3, 32, 224), (60, 2, 248), (-100, 1, 28), (200, 1, 255)],
)
def test_a_difference_is_magnified_around_grey_by_what_fits(difference, gain, shown):
    theirs = np.full((2, 4, 4, 3), 20 if difference >= 0 else 220, np.uint8)
    ours = theirs.copy()
    ours[1, 2, 2, 0] = int(theirs[1, 2, 2, 0]) + difference
    picture, factor = strip.magnified(theirs, ours)
    assert (factor, int(picture[1, 2, 2, 0])) == (gain, shown)
    picture[1, 2, 2, 0] = 128
    assert (picture == 128).all()


def test_rows_are_labelled_and_are_the_frames(tmp_path):
    rng = np.random.default_rng(0)
    theirs = rng.integers(0, 255, (9, 32, 64, 3), np.uint8)
    ours = theirs ^ 1
    strip.save(theirs, ours, ("torch", "fp16 on onnxruntime"), tmp_path / "s.png", count=3)
    with Image.open(tmp_path / "s.png") as image:
        assert image.size == (3 * 64, 3 * (32 + strip.LABEL))
        pixels = np.asarray(image).reshape(3, 32 + strip.LABEL, 192, 3)
    bars, rows = pixels[:, : strip.LABEL], pixels[:, strip.LABEL :]
    assert all((bar == strip.TEXT).all(-1).any() for bar in bars), "text"
    for row, frames in zip(rows, (theirs, ours)):
        assert (row == np.concatenate(list(frames[[0, 4, 8]]), axis=1)).all()
    assert set(np.unique(rows[2])) == {64, 192}
