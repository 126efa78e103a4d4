from __future__ import annotations

import json

import pytest

from ltxrt.engines.errors import BundleError
from ltxrt.engines.facts import Facts, from_json, to_json


@pytest.fixture
def data(facts):
    return json.loads(json.dumps(to_json(facts)))


def test_facts_survive_json(facts, data):
    assert from_json(Facts, data, "facts") == facts


def test_whole_numbers_are_floats_where_floats_are_wanted(facts, data):
    data["transformer"]["rope_theta"] = 10000
    read = from_json(Facts, data, "facts")
    assert read == facts and type(read.transformer.rope_theta) is float


def test_a_part_may_be_none(data):
    data["vae"] = None
    assert from_json(Facts, data, "facts").vae is None


def test_dicts_of_dataclasses_and_of_anything(facts, data):
    assert from_json(dict[str, Facts], {"a": data}, "x") == {"a": facts}
    with pytest.raises(BundleError, match=r"x\.a\.vae: expected an object"):
        from_json(dict[str, Facts], {"a": {**data, "vae": 1}}, "x")
    with pytest.raises(BundleError, match="x: expected an object"):
        from_json(dict[str, Facts], [], "x")


@pytest.mark.parametrize(
    "part, field, value, message",
    [
        ("transformer", "layers", "28", r"facts\.transformer\.layers: expected int, got '28'"),
        ("transformer", "layers", 28.0, "expected int, got 28.0"),
        ("transformer", "layers", True, "expected int, got True"),
        ("transformer", "causal_rope", 0, "expected bool, got 0"),
        ("transformer", "rope_theta", float("nan"), "expected a finite number, got nan"),
        ("transformer", "rope_theta", 10**400, "expected a finite number"),
        ("transformer", "rope_theta", None, "expected float, got None"),
        ("transformer", "rope_max_positions", [1, 2], "expected 3 values, got 2"),
        ("transformer", "rope_max_positions", 20, "expected a list, got 20"),
        ("vae", "latents_std", [1, "1"], r"facts\.vae\.latents_std\[1\]: expected float, got '1'"),
        ("vae", "noise_maps", [{"scale": 8}], r"noise_maps\[0\]: missing field count"),
        ("scheduler", "sigma", 1, "facts.scheduler: unknown field sigma"),
    ],
)
def test_a_wrong_field_is_named(data, part, field, value, message):
    data[part][field] = value
    with pytest.raises(BundleError, match=message):
        from_json(Facts, data, "facts")


def test_a_missing_field_is_named(data):
    del data["vae"]["latents_mean"]
    with pytest.raises(BundleError, match=r"facts\.vae: missing field latents_mean"):
        from_json(Facts, data, "facts")
