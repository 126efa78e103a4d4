"""Errors that other ports of LTX-Video are known to have, each shown not to be here."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from ltxrt.engines.backend import load_engine
from ltxrt.engines.bundle import read_bundle
from ltxrt.export.ltxv import versions
from ltxrt.runtime import engine_pool
from ltxrt.runtime.ltxv import conditions
from ltxrt.runtime.ltxv.pipeline import Pipeline
from ltxrt.runtime.media.read import Condition
from ltxrt.runtime.request.request import Request
from ltxrt.runtime.sampling.guidance import perturbation_mask

EIGHT = (1.0, 0.9937, 0.9875, 0.9812, 0.975, 0.9094, 0.725, 0.4219)
SMALL = {"height": 64, "width": 96, "num_frames": 9}


@pytest.fixture
def released(tiny_bundle):
    """version → a pipeline that believes to have that release, of the small bundle's weights."""

    def make(name):
        row = versions.version(name)
        bundle = read_bundle(tiny_bundle(row.vae_graph))
        transformer = dataclasses.replace(bundle.facts.transformer, layers=row.layers)
        facts = dataclasses.replace(bundle.facts, transformer=transformer, scheduler=row.scheduler)
        return Pipeline(dataclasses.replace(bundle, facts=facts, presets=row.presets))

    return make


@pytest.fixture
def calls(monkeypatch):
    """What each component was given, in order: (component, inputs)."""
    found = []

    class Recorded:
        def __init__(self, engine, name, static):
            self.engine, self.name, self.static = engine, name, static

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.engine.close()

        def bind(self, **static):
            return Recorded(self.engine.bind(**static), self.name, {**self.static, **static})

        def __call__(self, **inputs):
            found.append((self.name, {**self.static, **inputs}))
            return self.engine(**inputs)

    def load(bundle, name, **options):
        return Recorded(load_engine(bundle, name, **options), name, {})

    monkeypatch.setattr(engine_pool, "load_engine", load)
    return found


def of(calls, component):
    return [inputs for name, inputs in calls if name == component]


def test_sigmas_reach_the_time_embedding_whole(tiny_bundle, calls):
    Pipeline(tiny_bundle("0.9.5")).generate(Request("fog", timesteps=EIGHT[:4], **SMALL))
    found = [float(inputs["timesteps"][0, 0]) for inputs in of(calls, "transformer")]
    np.testing.assert_allclose(found, EIGHT[:4], rtol=1e-7)
    assert all(1000 * t % 1 for t in found[1:])  # an integer timestep would have lost something


@pytest.mark.parametrize("name", ["0.9.7-distilled", "0.9.8-2b-distilled", "0.9.8-13b-distilled"])
def test_distilled_sigmas_are_not_stretched_to_a_terminal_value(name, released):
    pipeline = released(name)
    (one,) = pipeline.plan(Request("fog", preset="single-pass", timesteps=EIGHT)).passes
    np.testing.assert_array_equal(one.schedule, np.float32(EIGHT))
    (one,) = pipeline.plan(Request("fog", preset="single-pass")).passes
    np.testing.assert_allclose(one.sigmas, EIGHT, atol=5.1e-5)


def test_the_shift_of_the_first_versions_is_applied(released):
    """Golden: 6144 tokens, 8 steps."""
    pipeline = released("0.9.0")
    (one,) = pipeline.plan(Request("fog", steps=8, height=512, width=768, num_frames=121)).passes
    golden = [1, 0.97391, 0.93983, 0.89342, 0.82651, 0.72165, 0.53381, 0.1]
    np.testing.assert_allclose(one.sigmas, golden, atol=6e-6)


def test_spatiotemporal_guidance_perturbs_attention_values_and_nothing_else(tiny_bundle, calls):
    pipeline = Pipeline(tiny_bundle("0.9.5"))
    pipeline.generate(Request("fog", steps=2, **SMALL))
    (block,) = pipeline.bundle.presets["default"].passes[0].skip_block_list[0]
    for inputs in of(calls, "transformer"):
        np.testing.assert_array_equal(np.argwhere(~inputs["perturbation_mask"]), [[block, 0, 2]])


@pytest.mark.parametrize("name", ["0.9.7-dev", "0.9.8-13b-dev"])
def test_guidance_of_the_13b_dev_models_peaks_where_its_lists_say(name, released):
    pipeline = released(name)
    (one,) = pipeline.plan(Request("fog", preset="single-pass", skip_final=3)).passes
    video = [step.streams["video"] for step in one.guidance]
    assert [step.cfg for step in video] == [1] * 3 + [6] * 2 + [8] * 5 + [6] * 4 + [1] * 13
    assert [step.stg for step in video] == [0] * 3 + [4] * 11 + [2] * 5 + [1] * 8
    assert [len(step.branches) for step in one.guidance] == [1] * 3 + [3] * 11 + [2] * 13


@pytest.mark.parametrize(("version", "timestep"), [("0.9.0", None), ("0.9.1", 0.05), ("0.9.5", 0.05)])
def test_the_decoder_is_told_its_timestep(version, timestep, tiny_bundle, calls):
    Pipeline(tiny_bundle(version)).generate(Request("fog", steps=2, **SMALL))
    (inputs,) = of(calls, "vae_decoder")
    assert inputs.get("timestep") == (None if timestep is None else np.float32(timestep))


@pytest.mark.parametrize("name", ["0.9.7-distilled", "0.9.8-13b-distilled", "0.9.8-2b-distilled"])
@pytest.mark.parametrize("number", [0, 1])
def test_block_42_of_the_distilled_models_is_listed_and_not_skipped(name, number, released):
    pipeline = released(name)
    plan = pipeline.plan(Request("fog"), components=())  # this bundle has no upsampler
    assert plan.settings.preset.passes[number].skip_block_list == ((42,),)
    for step in plan.passes[number].guidance:
        assert step.branches == ("positive",)
        assert perturbation_mask(step, plan.model.transformer.layers, 3).all()


def test_images_are_cropped_by_one_rule(tiny_bundle, tmp_path):
    """As the first frame, as a keyframe, and in a pass of another size (of the same shape)."""
    pixels = np.zeros((100, 400, 3), np.uint8)
    pixels[:, 150:250] = 255  # what a centred crop to 64×96 keeps
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    pipeline = Pipeline(tiny_bundle("0.9.5"))
    path = tmp_path / "wide.png"
    request = Request("fog", image=path, conditions=(Condition(path, 8, 1.0),), **SMALL)
    plan = pipeline.plan(request)
    settings, size, vae = plan.settings, plan.passes[0].size, plan.model.vae
    first, key = (conditions.read(c, settings, size, vae) for c in settings.conditions)
    np.testing.assert_array_equal(first, key)
    double = dataclasses.replace(size, height=2 * size.height, width=2 * size.width)
    larger = conditions.read(settings.conditions[0], settings, double, vae)
    rows = larger.reshape(3, 1, 64, 2, 96, 2).mean(axis=(3, 5))
    assert np.abs(rows - first).mean() < 0.05
