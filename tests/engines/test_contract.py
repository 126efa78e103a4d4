from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ltxrt.engines.contract import Affine
from ltxrt.engines.errors import InputError
from ltxrt.engines.families import component_names, derive
from ltxrt.engines.families.ltxv.facts import NoiseMaps

SIZES = {"B": 2, "N": 6, "K": 3, "T": 5, "f": 2, "h": 3, "w": 4}


@pytest.mark.parametrize(
    "text, at_three", [("N", 3), ("8*f-7", 17), ("32*h", 96), ("n+1", 4), ("2*x+10", 16)]
)
def test_affine_terms_go_both_ways(text, at_three):
    term = Affine.parse(text)
    assert term.value(3) == at_three
    assert term.solve(at_three) == 3


def test_affine_terms_have_no_value_between_or_below():
    assert Affine.parse("8*f-7").solve(16) is None
    assert Affine.parse("8*f-7").solve(1) == 1
    assert Affine.parse("N").solve(0) is None


@pytest.mark.parametrize("text", ["", "8", "8*", "f*8", "f*h", "0*f", "8*f-7-1", "-f"])
def test_what_is_no_affine_term(text):
    with pytest.raises(InputError, match="is not a symbol or an affine term"):
        Affine.parse(text)


@pytest.mark.parametrize("component", component_names())
def test_a_sample_fits_its_own_contract(component, facts):
    contract = derive(component, facts)
    feed = contract.sample(SIZES, np.random.default_rng(0))
    assert contract.check(feed) == {s: SIZES[s] for s in contract.symbols}
    (output,) = contract.outputs
    assert all(size > 0 for size in output.resolve(contract.check(feed)))


def test_vae_shapes_follow_the_compression(facts):
    sizes = {"B": 1, "f": 3, "h": 2, "w": 5}
    assert derive("vae_encoder", facts).inputs[0].resolve(sizes) == (1, 3, 17, 64, 160)
    assert derive("vae_decoder", facts).outputs[0].resolve(sizes) == (1, 3, 17, 64, 160)


def test_decoder_inputs_are_what_the_version_has(facts):
    bare = replace(facts, vae=replace(facts.vae, timestep_conditioning=False))
    noisy = replace(facts, vae=replace(facts.vae, noise_maps=(NoiseMaps(8, 4), NoiseMaps(2, 10))))
    assert [t.name for t in derive("vae_decoder", bare).inputs] == ["latents"]
    contract = derive("vae_decoder", noisy)
    assert [t.name for t in contract.inputs] == ["latents", "timestep", "noise_8x", "noise_2x"]
    assert contract.input("noise_2x").resolve(SIZES) == (10, 6, 8)


def test_dynamic_axes_are_every_axis_that_varies(facts):
    axes = derive("transformer", facts).dynamic_axes()
    assert axes["latents"] == {0: "B", 1: "N"}
    assert axes["rope_cos"] == {1: "N"}
    assert axes["perturbation_mask"] == {2: "B"}


def test_json_holds_names_dtypes_and_shapes(facts):
    contract = derive("text_encoder", facts)
    assert contract.to_json() == {
        "inputs": [
            {"name": "input_ids", "dtype": "i64", "shape": ["B", "T"]},
            {"name": "attention_mask", "dtype": "i64", "shape": ["B", "T"]},
        ],
        "outputs": [{"name": "hidden_states", "dtype": "f32", "shape": ["B", "T", 4]}],
    }


@pytest.mark.parametrize(
    "name, array, message",
    [
        ("latents", np.zeros((2, 6, 3)), r"wants latents f32 \(B, N, 3\); got latents float64 \(2, 6, 3\)"),
        ("latents", np.zeros((2, 6, 4), np.float32), r"got latents float32 \(2, 6, 4\)"),
        ("latents", np.zeros((6, 3), np.float32), r"got latents float32 \(6, 3\)"),
        ("latents", np.zeros((2, 0, 3), np.float32), r"got latents float32 \(2, 0, 3\)"),
        ("latents", np.zeros((2, 6, 3), ">f4"), "got latents >f4"),
        ("latents", [[[0.0]]], r"as a NumPy array; got latents list"),
        (
            "timestep_index",
            np.zeros((2, 6), np.int32),
            "wants timestep_index i64 .* got timestep_index int32",
        ),
        (
            "rope_sin",
            np.zeros((1, 5, 2), np.float32),
            r"wants rope_sin f32 \(1, N, 2\) with B=2, N=6, K=2, T=5; got rope_sin float32 \(1, 5, 2\)",
        ),
        ("context_mask", np.zeros((2, 4), bool), r"with B=2, N=6, K=2, T=5; got context_mask bool \(2, 4\)"),
    ],
)
def test_a_wrong_input_is_refused_by_name(facts, feed, name, array, message):
    with pytest.raises(InputError, match="^transformer: .*" + message):
        derive("transformer", facts).check({**feed, name: array})


def test_missing_and_unknown_inputs_are_refused(facts, feed):
    contract = derive("transformer", facts)
    without = {k: v for k, v in feed.items() if k != "context"}
    with pytest.raises(InputError, match=r"transformer takes latents, .*context.*; got latents"):
        contract.check(without)
    with pytest.raises(InputError, match=r"got .*sigma"):
        contract.check({**feed, "sigma": feed["timesteps"]})
    with pytest.raises(InputError, match="got nothing"):
        contract.check({})
    with pytest.raises(InputError, match="transformer has no input 'sigma'; it takes latents"):
        contract.input("sigma")


def test_part_of_a_contract_is_checked_against_known_sizes(facts, feed):
    contract = derive("transformer", facts).only(["rope_cos"])
    assert [t.name for t in contract.inputs] == ["rope_cos"]
    assert contract.check({"rope_cos": feed["rope_cos"]}, {"N": 6}) == {"N": 6}
    with pytest.raises(InputError, match="with N=7"):
        contract.check({"rope_cos": feed["rope_cos"]}, {"N": 7})
    with pytest.raises(InputError, match="has no input 'rope'"):
        derive("transformer", facts).only(["rope"])


def test_a_sample_needs_every_size(facts):
    with pytest.raises(InputError, match="transformer: no size given for K, T"):
        derive("transformer", facts).sample({"B": 1, "N": 1}, np.random.default_rng(0))


def test_unknown_components_and_missing_facts(facts):
    with pytest.raises(InputError, match="no component is named 'unet'; they are text_encoder, transformer"):
        derive("unet", facts)
    with pytest.raises(InputError, match=r"vae_decoder needs facts\.vae, which is missing"):
        derive("vae_decoder", replace(facts, vae=None))
