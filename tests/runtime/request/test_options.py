"""Options and settings files to the values of a request."""

import pytest

from ltxrt.engines.errors import InputError
from ltxrt.engines.families.ltxv.facts import VaeFacts
from ltxrt.export.ltxv import versions
from ltxrt.runtime.ltxv.settings import complete
from ltxrt.runtime.request import options, yaml_file
from ltxrt.runtime.request.kinds import BLOCKS, NUMBERS
from ltxrt.runtime.request.request import Request

VAE = VaeFacts(16, 32, 8, (0.0,) * 16, (1.0,) * 16, True, ())
DEV = """
pipeline_type: multi-scale
checkpoint_path: ltxv-13b-0.9.8-dev.safetensors
downscale_factor: 0.6666666
decode_timestep: 0.05
decode_noise_scale: 0.025
sampler: from_checkpoint
stg_mode: attention_values
stochastic_sampling: false
first_pass:
  guidance_scale: [1, 1, 6, 8, 6, 1, 1]
  stg_scale: [0, 0, 4, 4, 4, 2, 1]
  rescaling_scale: [1, 1, 0.5, 0.5, 1, 1, 1]
  guidance_timesteps: [1.0, 0.996, 0.9933, 0.9850, 0.9767, 0.9008, 0.6180]
  skip_block_list: [[], [11, 25, 35, 39], [22, 35, 39], [28], [28], [28], [28]]
  num_inference_steps: 30
  skip_final_inference_steps: 3
  cfg_star_rescale: true
second_pass:
  guidance_scale: [1]
  stg_scale: [1]
  rescaling_scale: [1]
  guidance_timesteps: [1.0]
  skip_block_list: [27]
  num_inference_steps: 30
  skip_initial_inference_steps: 17
  cfg_star_rescale: true
"""
BASE = """
pipeline_type: base
guidance_scale: 3
stg_scale: 1
rescaling_scale: 0.7
skip_block_list: [19]
num_inference_steps: 40
"""


def values(tmp_path, text):
    (tmp_path / "c.yaml").write_text(text)
    return yaml_file.read(tmp_path / "c.yaml").fields()


def test_lists_and_blocks():
    assert NUMBERS.from_text("x", "1,0.5, 2") == (1.0, 0.5, 2.0)
    assert BLOCKS.from_text("x", "11,25;;28") == ((11, 25), (), (28,))
    assert BLOCKS.from_text("x", "") == ((),)
    assert BLOCKS.from_text("x", ";0,1;2") == ((), (0, 1), (2,))
    for kind in (NUMBERS, BLOCKS):
        with pytest.raises(InputError, match="x '1,a': must be"):
            kind.from_text("x", "1,a")


def test_second_pass_settings():
    assert options.second_pass(["num-inference-steps=3", "cfg-star-rescale=yes"]) == {
        "steps": 3,
        "cfg_star": True,
    }
    found = options.second_pass(["steps=10", "guidance-scale=1,3", "cfg-star=no", "skip-block-list=1;2"])
    assert found == {
        "steps": 10, "guidance_scale": (1.0, 3.0), "cfg_star": False, "skip_block_list": ((1,), (2,)),
    }  # fmt: skip
    for items, message in (
        (["steps"], r"second_pass 'steps': must be KEY=VALUE; did you mean steps=VALUE\?"),
        (["cfg_scale=3"], r"must be KEY=VALUE; did you mean guidance-scale=VALUE\?"),
        (["height=3"], "must be KEY=VALUE; KEY is steps, timesteps"),
        (["steps=x"], "second_pass.steps 'x': must be a whole number"),
        (["cfg-star=1"], "must be yes or no"),
        (["steps=" + "9" * 400], "second_pass.steps '9{80}'…: must be a whole number of up to 20 digits"),
        (["steps=" + "9" * 5000], "must be a whole number"),
        (["steps=३"], "must be a whole number"),
        (["steps=1_0"], "must be a whole number"),
        (["guidance-scale=३"], "must be numbers with commas"),
        (["skip-block-list=" + "9" * 400], "must be block numbers"),
        (["tone-map=x"], "second_pass.tone_map 'x': must be a number"),
        (["x" * 10**6], "second_pass 'x{80}'…: must be KEY=VALUE"),
        (["steps=1", "steps=2"], "second_pass.steps: given twice"),
    ):
        with pytest.raises(InputError, match=message) as error:
            options.second_pass(items)
        assert len(str(error.value)) < 400


def test_the_second_pass_takes_the_official_file_s_tone_mapping():
    assert options.second_pass(["tone-map=0.6"]) == {"tone_map": 0.6}


def test_precisions():
    names = ("transformer", "vae_decoder")
    assert options.precisions(None, names) == {}
    assert options.precisions("fp16", names) == dict.fromkeys(names, "fp16")
    assert options.precisions("vae_decoder=fp32", names) == {"vae_decoder": "fp32"}
    with pytest.raises(InputError, match="names 'unet'"):
        options.precisions("unet=fp16", names)
    with pytest.raises(InputError, match=r"precision fp8: only the transformer .* precision transformer=fp8"):
        options.precisions("fp8", names)
    with pytest.raises(InputError, match="names a component twice"):
        options.precisions("transformer=fp16,transformer=fp32", names)


def test_steps_and_timesteps_replace_one_another():
    base = {"steps": 5, "height": 64}
    assert options.over(base, {"timesteps": (1.0,)}) == {"height": 64, "timesteps": (1.0,)}
    assert options.over({"timesteps": (1.0,)}, {"steps": 3}) == {"steps": 3}
    assert options.over(base, {"height": 96}) == {"steps": 5, "height": 96}


def test_the_official_file_is_the_official_preset(tmp_path):
    presets = versions.version("0.9.8-13b-dev").presets
    settings = complete(Request("fog", **values(tmp_path, DEV)), presets, VAE)
    assert settings.preset == presets["default"]


@pytest.mark.parametrize("name", ["0.9.8-13b-dev", "0.9.7-distilled", "0.9.0"])
def test_a_base_file_makes_one_pass_of_any_preset(tmp_path, name):
    settings = complete(Request("fog", **values(tmp_path, BASE)), versions.version(name).presets, VAE)
    (one,) = settings.preset.passes
    wanted = versions.version("0.9.0").presets["default"].passes[0]
    assert one == wanted


def test_what_a_file_of_one_s_own_leaves_out_is_the_preset_s(tmp_path):
    presets = versions.version("0.9.8-13b-dev").presets
    own = values(tmp_path, "first_pass: {steps: 9}\nsecond_pass: {}\n")
    first, _ = complete(Request("fog", **own), presets, VAE).preset.passes
    assert (first.steps, first.skip_final, len(first.guidance_scale)) == (9, 3, 7)


BARE = "pipeline_type: base\nstg_mode: attention_values\n"


@pytest.mark.parametrize("name", ["0.9.8-13b-dev", "0.9.7-distilled", "0.9.1"])
def test_what_an_official_file_leaves_out_is_the_official_pipeline_s_default(tmp_path, name):
    """Those of `LTXVideoPipeline.__call__`, ltx-video 0.1.2: no preset's."""
    presets = versions.version(name).presets
    preset = complete(Request("fog", **values(tmp_path, BARE)), presets, VAE).preset
    (one,) = preset.passes
    assert (one.steps, one.timesteps, one.skip_initial, one.skip_final) == (20, None, 0, 0)
    assert (one.guidance_scale, one.stg_scale, one.rescaling_scale) == ((4.5,), (1.0,), (0.7,))
    assert (one.skip_block_list, one.guidance_timesteps, one.stg_mode) == (((),), None, "attention_values")
    assert (one.cfg_star, one.stochastic, preset.tone_map) == (False, False, 0.0)
    assert (preset.decode_timestep, preset.decode_noise_scale) == (0.0, 0.0)


def test_official_decode_noise_is_its_timestep_unless_said(tmp_path):
    found = values(tmp_path, BARE + "decode_timestep: 0.05\n")
    assert (found["decode_timestep"], found["decode_noise_scale"]) == (0.05, 0.05)
    found = values(tmp_path, BARE + "decode_timestep: 0.05\ndecode_noise_scale: 0\n")
    assert (found["decode_timestep"], found["decode_noise_scale"]) == (0.05, 0.0)
    found = values(tmp_path, BARE + "timesteps: [1, 0.5]\n")
    assert "steps" not in found and found["timesteps"] == (1.0, 0.5)


def test_the_official_file_s_stochastic_sampling_holds_for_both_passes(tmp_path):
    presets = versions.version("0.9.8-13b-dev").presets
    for text in (DEV.replace("sampling: false", "sampling: true"), "stochastic_sampling: true\n"):
        passes = complete(Request("fog", **values(tmp_path, text)), presets, VAE).preset.passes
        assert [one.stochastic for one in passes] == [True, True]


def test_options_over_a_file_of_two_passes(tmp_path):
    presets = versions.version("0.9.8-13b-dev").presets
    base = values(tmp_path, DEV + "  tone_map_compression_ratio: 0.6\n")

    def preset(own, second=()):
        second = options.second_pass(second)
        return complete(Request("fog", **options.merged(base, own, second)), presets, VAE).preset

    (one,) = preset({"two_passes": False}).passes
    assert (one.steps, one.skip_final) == (30, 0)
    assert [p.stochastic for p in preset({"stochastic": True}).passes] == [True, True]
    assert [p.stochastic for p in preset({"stochastic": True}, ["stochastic=no"]).passes] == [True, False]
    first, second = preset({"steps": 5, "skip_final": 0}, ["steps=9", "skip-initial=1"]).passes
    assert (first.steps, first.skip_final, second.steps, second.skip_initial) == (5, 0, 9, 1)
    assert (preset({}).tone_map, preset({"tone_map": 0.2}).tone_map) == (0.6, 0.2)
    assert preset({}, ["tone-map=0.1"]).tone_map == 0.1


def test_which_options_the_first_pass_alone_follows():
    own = {"steps": 3, "cfg_star": True, "stochastic": True, "tone_map": 0.1, "height": 64}
    assert options.first_only(own, {}) == ["steps", "cfg_star"]
    assert options.first_only(own, {"cfg_star": False}) == ["steps"]


def test_tone_mapping_is_the_last_pass_s(tmp_path):
    text = DEV + "  tone_map_compression_ratio: 0.6\n"
    assert values(tmp_path, text)["tone_map"] == 0.6
    with pytest.raises(InputError, match="give it in second_pass"):
        values(tmp_path, DEV.replace("first_pass:\n", "first_pass:\n  tone_map_compression_ratio: 0.6\n"))
