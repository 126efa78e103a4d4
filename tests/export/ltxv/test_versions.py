"""Which release a checkpoint is."""

from dataclasses import replace

import pytest

from ltxrt.engines.errors import CheckpointError
from ltxrt.engines.families.ltxv.facts import SchedulerFacts
from ltxrt.export.ltxv import versions
from ltxrt.parity.synthetic.models import full, tiny

FILES = {
    "0.9.0": "ltx-video-2b-v0.9.safetensors",
    "0.9.1": "ltx-video-2b-v0.9.1.safetensors",
    "0.9.5": "ltx-video-2b-v0.9.5.safetensors",
    "0.9.6-dev": "ltxv-2b-0.9.6-dev-04-25.safetensors",
    "0.9.6-distilled": "ltxv-2b-0.9.6-distilled-04-25.safetensors",
    "0.9.7-dev": "ltxv-13b-0.9.7-dev-fp8.safetensors",
    "0.9.7-distilled": "LTX-Video-0.9.7-distilled",
    "0.9.8-2b-distilled": "ltxv-2b-0.9.8-distilled.safetensors",
    "0.9.8-13b-dev": "ltxv-13b-0.9.8-dev.safetensors",
    "0.9.8-13b-distilled": "LTX-Video-0.9.8-13B-distilled",
}


def recognise(models, name, override=None, scheduler=True):
    return versions.recognise(
        models.transformer, models.vae, models.scheduler if scheduler else None, name, override
    )


@pytest.mark.parametrize("version", FILES)
@pytest.mark.parametrize("scheduler", [True, False])
@pytest.mark.parametrize("models", [full, tiny])
def test_released_names(version, scheduler, models):
    row = recognise(models(version), FILES[version], scheduler=scheduler)
    assert row == versions.version(version) and row.certain


@pytest.mark.parametrize(
    ("version", "name", "expected", "certain"),
    [
        ("0.9.0", "model.safetensors", "0.9.0", True),
        ("0.9.1", "model.safetensors", "0.9.1", True),
        ("0.9.6-dev", "model.safetensors", "0.9.5", False),
        ("0.9.8-2b-distilled", "model.safetensors", "0.9.6-distilled", False),
        ("0.9.8-13b-dev", "ltxv-13b-dev.safetensors", "0.9.7-dev", False),
        ("0.9.5", "ltx-video-2b-v0.9.1.safetensors", "0.9.5", False),  # the architecture goes before the name
    ],
)
def test_other_names_give_the_oldest_that_fits(version, name, expected, certain):
    row = recognise(full(version), name)
    assert (row.name, row.certain) == (expected, certain)


def test_tiny_models_are_told_by_graph_and_steps():
    assert recognise(tiny("0.9.1"), "x").name == "0.9.1"
    assert recognise(tiny("0.9.5"), "x").name == "0.9.5"
    assert recognise(tiny("0.9.6-distilled"), "x").name == "0.9.6-distilled"


def test_without_a_vae_the_schedule_decides():
    new, old = full("0.9.5"), full("0.9.0")
    assert versions.recognise(new.transformer, None, new.scheduler, "x").name == "0.9.5"
    assert versions.recognise(old.transformer, None, old.scheduler, "x").name == "0.9.0"
    large = full("0.9.7-dev").transformer
    shifted = SchedulerFacts("uniform", "sd3", None, None)
    assert (
        versions.recognise(large, None, shifted, "x").name == "0.9.7-dev"
    )  # layers say more than the sampler


def test_override():
    assert recognise(full("0.9.5"), "x", "0.9.6-dev").certain
    assert recognise(full("0.9.5"), "x", "0.9.6-distilled").name == "0.9.6-distilled"
    with pytest.raises(
        CheckpointError, match=r"0\.9\.1 does not fit .*28 layers, 0\.9\.5 VAE graph.* could be 0\.9\.5"
    ):
        recognise(full("0.9.5"), "x", "0.9.1")
    with pytest.raises(CheckpointError, match=r"0\.9\.5 does not fit .*distilled"):
        recognise(full("0.9.6-distilled"), "x", "0.9.5")
    with pytest.raises(CheckpointError, match=r"'0\.9\.9' is not known; known are 0\.9\.0"):
        recognise(full("0.9.5"), "x", "0.9.9")


def test_mismatched_parts_are_refused():
    mixed = replace(full("0.9.7-dev"), vae=full("0.9.1").vae)
    with pytest.raises(CheckpointError, match="do its transformer and its VAE belong together"):
        recognise(mixed, "ltxv-13b-0.9.7-dev.safetensors")


def test_rows_say_what_the_official_configs_say():
    rows = {v.name: v for v in versions.VERSIONS}
    assert list(rows) == list(FILES)
    assert {n for n, v in rows.items() if v.scheduler.allowed_steps} == {n for n in rows if "distilled" in n}
    for row in rows.values():
        assert row.distilled == ("distilled" in row.name) and row.licence
        assert row.causal_rope == (row.vae_graph == "0.9.5")
        for preset in row.presets.values():
            assert preset.num_frames % 8 == 1 and preset.height % 32 == preset.width % 32 == 0
            assert (preset.decode_timestep, preset.decode_noise_scale) == (
                (0.0, 0.0) if row.vae_graph == "0.9.0" else (0.05, 0.025)
            )
            assert preset.max_tokens == 256 and preset.image_noise_scale == 0.15


# The official files' rows: (steps or timesteps, guidance, stg, rescaling, blocks) of each pass, as they have
# them.
BASE = [(40, (3,), (1,), (0.7,), ((19,),))]
EIGHT = (1.0, 0.9937, 0.9875, 0.9812, 0.975, 0.9094, 0.725, 0.4219)
NONE = ((1,), (0,), (1,))
DEV = [
    (
        30,
        (1, 1, 6, 8, 6, 1, 1),
        (0, 0, 4, 4, 4, 2, 1),
        (1, 1, 0.5, 0.5, 1, 1, 1),
        ((), (11, 25, 35, 39), (22, 35, 39), (28,), (28,), (28,), (28,)),
    ),
    (30, (1,), (1,), (1,), ((27,),)),
]
DISTILLED = [(EIGHT[:7], *NONE, ((42,),)), (EIGHT[5:], *NONE, ((42,),))]
ROWS = {
    "0.9.0": BASE,
    "0.9.1": BASE,
    "0.9.5": BASE,
    "0.9.6-dev": BASE,
    "0.9.6-distilled": [(8, *NONE, ((),))],
    "0.9.7-dev": DEV,
    "0.9.7-distilled": DISTILLED,
    "0.9.8-2b-distilled": DISTILLED,
    "0.9.8-13b-dev": DEV,
    "0.9.8-13b-distilled": DISTILLED,
}


@pytest.mark.parametrize("name", ROWS)
def test_preset_rows(name):
    preset = versions.version(name).presets["default"]
    found = [
        (p.timesteps or p.steps, p.guidance_scale, p.stg_scale, p.rescaling_scale, p.skip_block_list)
        for p in preset.passes
    ]
    assert found == ROWS[name]
    assert all(p.stg_mode == "attention_values" for p in preset.passes)
    assert [p.stochastic for p in preset.passes] == [name == "0.9.6-distilled"] * len(found)
    assert [p.cfg_star for p in preset.passes] == [found == DEV] * len(found)
    assert preset.tone_map == (0.6 if name == "0.9.8-13b-distilled" else 0.0)
    assert preset.downscale_factor == (0.6666666 if len(found) == 2 else 1.0)
    if found == DEV:
        first, second = preset.passes
        assert first.guidance_timesteps == (1.0, 0.996, 0.9933, 0.985, 0.9767, 0.9008, 0.618)
        assert [(p.skip_initial, p.skip_final) for p in (first, second)] == [(0, 3), (17, 0)]


@pytest.mark.parametrize("name", ROWS)
def test_a_bundle_without_upsampler_has_a_preset_of_one_pass(name):
    presets = versions.version(name).presets
    assert any(len(preset.passes) == 1 and preset.downscale_factor == 1 for preset in presets.values())


def test_a_small_model_is_perturbed_at_the_same_depth():
    row = versions.version("0.9.5")
    assert versions.presets(row, 28) == row.presets
    (one,) = versions.presets(row, 3)["default"].passes
    assert one.skip_block_list == ((2,),)
    first, _ = versions.presets(versions.version("0.9.7-dev"), 6)["default"].passes
    assert first.skip_block_list == ((), (1, 3, 4), (2, 4), (3,), (3,), (3,), (3,))
