"""Layers of the traced modules, and what a module says of its weights without having any."""

import pytest
from torch import nn

from ltxrt.engines.errors import CheckpointError
from ltxrt.export.graph.layers import Linear, stored_shapes


def test_weights_are_listed_as_the_checkpoint_has_them():
    """Ours are stored (in, out), a checkpoint's (out, in); torch's own layers are left as they are."""
    shapes = stored_shapes(lambda: nn.Sequential(Linear(2, 3), nn.Conv2d(3, 5, 1)))
    assert shapes == {"0.weight": (3, 2), "0.bias": (3,), "1.weight": (5, 3, 1, 1), "1.bias": (5,)}


def test_nothing_is_allocated():
    assert stored_shapes(lambda: Linear(1 << 24, 1 << 24)).popitem()[1] == (1 << 24,)


@pytest.mark.parametrize("size", [1 << 40, 1 << 70])
def test_sizes_beyond_any_address_are_refused(size):
    with pytest.raises(CheckpointError, match="the config's sizes are impossible"):
        stored_shapes(lambda: Linear(size, size))
