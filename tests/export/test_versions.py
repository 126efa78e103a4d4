"""Which release a checkpoint is."""

from dataclasses import replace

import pytest

from ltxrt.engines.errors import CheckpointError
from ltxrt.engines.facts import SchedulerFacts
from ltxrt.export import versions
from ltxrt.export.synthetic_models import full, tiny

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
        assert row.distilled == ("distilled" in row.name) == (row.preset.guidance_scale == 1.0)
        assert row.preset.num_frames % 8 == 1 and row.preset.height % 32 == row.preset.width % 32 == 0
        assert (row.preset.decode_timestep > 0) == (row.vae_graph != "0.9.0")
        assert row.causal_rope == (row.vae_graph == "0.9.5")
        assert row.preset.max_tokens == 256 and row.licence
    assert [rows[n].preset.steps for n in ("0.9.5", "0.9.7-dev", "0.9.8-2b-distilled")] == [40, 30, 8]
