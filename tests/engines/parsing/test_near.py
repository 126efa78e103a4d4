"""The name that somebody meant who wrote one that does not exist."""

import pytest

from ltxrt.engines.parsing.near import nearest

KNOWN = ("guidance_scale", "num_frames", "--seed", "--seeds", "preset")


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("Guidance-Scale", "guidance_scale"),  # case and hyphens
        ("pre", "preset"),  # its only beginning
        ("nun_frames", "num_frames"),  # a letter
        ("--see", "--seed"),  # of several beginnings the nearest
        ("x", None),
        ("", None),
        ("seed" * 10_000, None),  # as fast as any other
    ],
)
def test_the_nearest_name_is_found(word, meant):
    assert nearest(word, KNOWN) == meant
