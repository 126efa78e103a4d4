"""Whole runs against the official pipeline: vectors that `make_official.py` wrote where it is installed.

The checkpoints are the tiny ones of the other tests, whose random weights are the same everywhere.
"""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from ltxrt.runtime.ltxv import conditions as given
from ltxrt.runtime.ltxv import decode
from ltxrt.runtime.ltxv.compat import BEHAVIOURS
from ltxrt.runtime.ltxv.pipeline import Pipeline
from ltxrt.runtime.media import preprocess
from ltxrt.runtime.media.preprocess import Fit
from ltxrt.runtime.media.read import Condition
from ltxrt.runtime.request.request import Request

GOLDEN = Path(__file__).parent / "golden"
TABLE = json.loads((GOLDEN / "cases.json").read_text())


@pytest.fixture(scope="module")
def official():
    return np.load(GOLDEN / "official.npz")


@pytest.fixture
def run(tiny_bundle, two_pass_bundle, monkeypatch):
    """case → (latents after the last pass, latents decoded, some frames in 0..1 before rounding)."""

    def make(name):
        case, seen = TABLE["cases"][name], {}
        two = "two_passes" in case
        values = {**TABLE["common"], **case.get("request", {})}
        if two:
            second = TABLE["two passes"]["second_pass"] | {"stochastic": values["stochastic"]}
            values |= TABLE["two passes"] | {"second_pass": second}
        conditions = tuple(Condition(GOLDEN / file, *place) for file, *place in case.get("conditions", ()))
        video = GOLDEN / case["input_video"] if "input_video" in case else None
        bundle = two_pass_bundle if two else tiny_bundle(case["version"])
        prepare, kept = decode.prepare, []

        def watched(settings, vae, latents, generator):
            seen["latents"], seen["decoded"] = latents, prepare(settings, vae, latents, generator)
            return seen["decoded"]

        monkeypatch.setattr(decode, "prepare", watched)
        monkeypatch.setattr(decode, "to_uint8", lambda pixels: kept.append(pixels) or np.arange(2))
        request = Request(TABLE["prompt"], conditions=conditions, input_video=video, two_passes=two, **values)
        Pipeline(bundle).generate(request)
        frames = np.concatenate(kept, axis=1).transpose(1, 2, 3, 0)[::4, ::7, ::7] / 2 + 0.5
        return {**seen, "frames": frames.clip(0, 1)}

    return make


def decibels(ours, theirs, peak):
    assert ours.shape == theirs.shape
    assert theirs.std() > 0.05 * peak, "the reference made nothing to compare with"
    error = np.mean((ours.astype(np.float64) - theirs) ** 2)
    return np.inf if error == 0 else 10 * np.log10(peak**2 / error)


def compared(ours, official, name):
    """How near each of a case's arrays is, in decibels; latents' peak is taken as 1, their deviation."""
    frames = official[f"{name}/frames"].astype(np.float64) / 65535
    near = {key: decibels(ours[key], official[f"{name}/{key}"], 1.0) for key in ("latents", "decoded")}
    return {**near, "frames": decibels(ours["frames"], frames, 1.0)}


@pytest.mark.parametrize("name", TABLE["cases"])
def test_a_run_is_the_official_one(name, run, official):
    near = compared(run(name), official, name)
    assert min(near.values()) >= 80, near


def without(behaviour):
    return lambda patch: patch.setitem(
        BEHAVIOURS, "official", dataclasses.replace(BEHAVIOURS["official"], **{behaviour: False})
    )


def fitted(change):
    return lambda patch: patch.setattr(
        given, "Fit", lambda asked, size, first, around: Fit(*change(asked, size, first), around)
    )


@pytest.mark.parametrize(
    ("name", "key", "otherwise"),
    [
        ("0.9.5", "decoded", without("strided_decode_noise")),
        ("0.9.1 without decode noise", "frames", without("strided_decode_noise")),  # its maps come after
        ("0.9.5 image stochastic", "latents", without("posterior_drawn")),
        ("0.9.5 video stochastic", "latents", without("posterior_drawn")),
        ("two passes image", "latents", fitted(lambda asked, size, first: (size, size, first))),
        ("0.9.5 video", "latents", fitted(lambda asked, size, first: (asked, size, False))),
        ("0.9.5 image cropped", "latents", lambda patch: patch.setattr(preprocess, "padded", lambda p, _: p)),
        ("two passes", "frames", lambda patch: patch.setattr(decode, "CLIPPED", (-9, 9))),
    ],
    ids=[
        "decode noise",
        "noise maps",
        "posterior",
        "posterior of a video",
        "crop",
        "scaled first",
        "margins",
        "clip",
    ],
)
def test_each_behaviour_is_seen(name, key, otherwise, run, official, monkeypatch):
    """The comparison can fail: otherwise it is another video."""
    otherwise(monkeypatch)
    assert compared(run(name), official, name)[key] < 60
