from __future__ import annotations

import json

import pytest

from ltxrt.engines.errors import BundleError
from ltxrt.engines.families.ltxv.facts import Facts
from ltxrt.engines.parsing.schema import from_json, to_json


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
        ("scheduler", "\x1b[2J", 1, r"facts\.scheduler: unknown field '\\x1b\[2J'"),
        ("scheduler", "sampler", "cosine", "sampler: must be uniform or linear_quadratic, got 'cosine'"),
        ("scheduler", "allowed_steps", [0.5] * 1001, "must have 0 to 1000 entries, got list of 1001"),
        ("transformer", "layers", 0, "layers: must be between 1 and 512, got 0"),
        ("transformer", "layers", 10**19, "got a number of 64 bits"),
        ("transformer", "head_size", 5, "1 heads of 5 must give an even width up to 32768"),
        ("vae", "latent_channels", 0, "latent_channels: must be between 1 and 4096"),
        ("vae", "latent_channels", 4, "latents_mean and latents_std must have 4 values"),
        ("vae", "spatial_compression", 0, "spatial_compression: must be between 1 and 256"),
        ("vae", "noise_maps", [{"scale": 2, "count": 1}] * 2, "two entries of one scale"),
        ("text_encoder", "width", 1 << 20, "width: must be between 1 and 65536"),
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


def test_what_declares_no_bound_has_one(facts, data):
    texts = {"a": "x"}
    assert from_json(dict[str, str], texts, "t") == texts
    for wrong, message in (
        ({"a": "x" * 70_000}, r"t\.a: must have at most 65536 characters"),
        ({str(i): "" for i in range(5000)}, "t: must have at most 4096 entries, has 5000"),
        ({"x" * 300: ""}, "is not a name"),
        ({"\x1b]0;": ""}, "is not a name"),
    ):
        with pytest.raises(BundleError, match=message):
            from_json(dict[str, str], wrong, "t")
    with pytest.raises(BundleError, match="must have at most 65536 entries"):
        from_json(tuple[int, ...], [0] * 70_000, "t")
    with pytest.raises(BundleError, match="t: must be between -9007199254740992 and"):
        from_json(int, 10**18, "t")
