"""Numbers in a checkpoint's configs."""

import pytest

from ltxrt.engines.errors import CheckpointError
from ltxrt.export.checkpoint.fields import Fields


@pytest.mark.parametrize("value", [10**400, -(10**400), float("nan"), float("inf"), True, "1", None])
def test_what_is_no_finite_number_is_refused(value):
    with pytest.raises(CheckpointError, match=r"config: theta is .*; it must be a number from .*") as error:
        Fields({"theta": value}, "config").number("theta")
    assert len(str(error.value)) < 200


@pytest.mark.parametrize("value", [0, 10**6, -1.5])
def test_finite_numbers_are_read_as_floats(value):
    assert Fields({"theta": value}, "config").number("theta") == float(value)
