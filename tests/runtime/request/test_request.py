from dataclasses import replace

import pytest

from ltxrt.engines.errors import InputError
from ltxrt.engines.families.ltxv.facts import SchedulerFacts, VaeFacts
from ltxrt.export.ltxv import versions
from ltxrt.runtime.ltxv.settings import complete
from ltxrt.runtime.request import json_form
from ltxrt.runtime.request.fields import SETTINGS
from ltxrt.runtime.request.request import Request

VAE = VaeFacts(4, 32, 8, (0.0,) * 4, (1.0,) * 4, True, ())
LIMITS = {name: row.bounds for name, row in SETTINGS.items() if row.bounds}
PRESETS = versions.version("0.9.1").presets
TWO = versions.version("0.9.8-13b-distilled").presets
DEV = versions.version("0.9.8-13b-dev").presets


def the_pass(request, presets=PRESETS):
    (one,) = complete(request, presets, VAE).preset.passes
    return one


def test_preset_fills_what_is_left_open():
    settings = complete(Request("fog", steps=7), PRESETS, VAE)
    assert (settings.preset.passes[0].steps, settings.preset.height) == (7, 480)
    assert settings.preset.negative_prompt == PRESETS["default"].negative_prompt
    assert (settings.preset.max_tokens, settings.guided) == (256, True)


@pytest.mark.parametrize(("reference", "tokens"), [("diffusers", 128), ("diffusers-condition", 256)])
def test_diffusers_reads_fewer_tokens_and_has_no_spatiotemporal_guidance(reference, tokens):
    settings = complete(Request("fog", reference=reference), PRESETS, VAE)
    assert settings.preset.max_tokens == tokens
    (one,) = settings.preset.passes
    assert (one.guidance_scale, one.stg_scale, one.rescaling_scale) == ((3.0,), (0.0,), (1.0,))
    asked = complete(Request("fog", reference=reference, stg_scale=2, skip_block_list=((3,),)), PRESETS, VAE)
    assert (asked.preset.passes[0].stg_scale, asked.preset.passes[0].skip_block_list) == ((2,), ((3,),))
    two = complete(Request("fog", reference=reference), DEV, VAE).preset
    assert two.adain_factor == 0.0 and not any(p.cfg_star for p in two.passes)


def test_an_empty_negative_prompt_is_the_user_s_and_stays():
    assert complete(Request("fog", negative_prompt=""), PRESETS, VAE).preset.negative_prompt == ""


@pytest.mark.parametrize("prompt", ["", "   ", "\n"])
def test_empty_prompt_is_refused(prompt):
    with pytest.raises(InputError, match="prompt is empty"):
        complete(Request(prompt), PRESETS, VAE)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"num_frames": 20, "reference": "diffusers"},
            "num_frames 20: must be 8k\\+1; nearest are 17 and 25",
        ),
        (
            {"height": 100, "reference": "diffusers-condition"},
            "height 100: must be a multiple of 32; nearest are 96 and 128",
        ),
        ({"height": 0}, "height 0: must be between 1 and 8192"),
        ({"num_frames": -7}, "num_frames -7: must be between"),
        ({"width": 10**9}, "width 1000000000: must be between"),
        ({"steps": 0}, "steps 0: must be between 1 and 1000"),
        ({"frame_rate": 0.0}, "frame_rate 0.0: must be between"),
        ({"frame_rate": float("nan")}, "frame_rate nan: must be between"),
        ({"guidance_scale": float("inf")}, "guidance_scale inf: must be between"),
        ({"guidance_scale": -1.0}, "guidance_scale -1.0: must be between"),
        ({"seed": -2}, "seed -2: must be between"),
        ({"seed": 2**64}, "seed 18446744073709551616: must be between"),
        ({"image_strength": 1.5}, "image_strength 1.5: must be between 0 and 1"),
        ({"reference": "comfy"}, "reference 'comfy': must be one of official, diffusers"),
        ({"steps": 10**5000}, "steps a number of more than 80 digits: must be between 1 and 1000"),
        ({"frame_rate": 10**400}, "frame_rate a number of more than 80 digits: must be between 1 and 240"),
        ({"guidance_scale": 10**400}, "guidance_scale a number of more than 80 digits: must be between"),
        ({"prompt": "fog \udcff"}, r"prompt is no UTF-8 text at 'fog \\xff'; give it in UTF-8"),
        ({"negative_prompt": "\ud800"}, r"negative_prompt is no UTF-8 text at '\\ud800'"),
        ({"preset": "x" * 10**5}, "preset 'x{80}'…: this bundle has default"),
    ],
)
def test_wrong_values_get_one_sentence(values, message):
    with pytest.raises(InputError, match=message):
        complete(Request(**{"prompt": "fog", **values}), PRESETS, VAE)


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize("digits", [20, 400, 5000])
def test_whole_numbers_too_large_for_a_float_or_for_text_are_out_of_range(name, digits):
    with pytest.raises(InputError, match="must be between") as error:
        complete(Request("fog", **{name: 10**digits}), PRESETS, VAE)
    assert len(str(error.value)) < 200


@pytest.mark.parametrize("name", LIMITS)
def test_limits_themselves_are_allowed(name):
    if name in ("height", "width", "num_frames"):
        with pytest.raises(InputError, match="nearest"):
            complete(Request("fog", **{name: 2}, reference="diffusers"), PRESETS, VAE)
    for value in LIMITS[name]:
        complete(Request("fog", **{name: value}), PRESETS, VAE)


def test_timesteps_set_the_steps_and_exclude_them():
    one = the_pass(Request("fog", timesteps=(1.0, 0.5)))
    assert (one.steps, one.timesteps) == (2, (1.0, 0.5))
    with pytest.raises(InputError, match="steps and timesteps exclude each other"):
        complete(Request("fog", timesteps=(1.0,), steps=3), PRESETS, VAE)
    with pytest.raises(InputError, match="timesteps leaves nothing to skip"):
        complete(Request("fog", timesteps=(1.0,), skip_final=1), PRESETS, VAE)


def test_a_preset_s_timesteps_yield_to_steps():
    one, _ = complete(Request("fog", steps=9), TWO, VAE).preset.passes
    assert (one.steps, one.timesteps) == (9, None)
    first, second = complete(Request("fog"), TWO, VAE).preset.passes
    assert (first.steps, second.steps) == (7, 3)


def test_timesteps_are_not_cut_by_a_preset_s_skips():
    one, _ = complete(Request("fog", timesteps=(1.0, 0.5)), DEV, VAE).preset.passes
    assert (one.skip_initial, one.skip_final) == (0, 0)


def test_flags_are_the_first_pass_s_and_the_second_has_its_own():
    request = Request("fog", steps=5, guidance_scale=2, second_pass={"steps": 20, "stg_scale": 0.5})
    first, second = complete(request, DEV, VAE).preset.passes
    assert (first.steps, first.guidance_scale, first.skip_final) == (5, (2,), 3)
    assert (second.steps, second.stg_scale, second.guidance_scale) == (20, (0.5,), (1.0,))


def test_two_passes_become_one_and_one_becomes_two():
    assert len(complete(Request("fog", two_passes=False), TWO, VAE).preset.passes) == 1
    two = Request("fog", two_passes=True, downscale_factor=0.5, second_pass={"timesteps": (0.5,)})
    first, second = complete(two, PRESETS, VAE).preset.passes
    assert (first.steps, second.timesteps) == (40, (0.5,))


def test_of_two_passes_made_one_the_first_runs_to_its_end():
    assert DEV["default"].passes[0].skip_final == 3
    for steps in (3, 30):
        assert the_pass(Request("fog", two_passes=False, steps=steps), DEV).skip_final == 0
    assert the_pass(Request("fog", two_passes=False, skip_final=2), DEV).skip_final == 2


@pytest.mark.parametrize("given", [True, False])
def test_stochastic_holds_for_both_passes_unless_the_second_says_otherwise(given):
    presets = {
        "default": replace(
            DEV["default"], passes=[replace(p, stochastic=not given) for p in DEV["default"].passes]
        )
    }
    both = complete(Request("fog", stochastic=given), presets, VAE).preset.passes
    assert [one.stochastic for one in both] == [given, given]
    apart = Request("fog", stochastic=given, second_pass={"stochastic": not given})
    assert [one.stochastic for one in complete(apart, presets, VAE).preset.passes] == [given, not given]


def test_the_second_pass_may_say_how_latents_are_compressed_after_it():
    assert complete(Request("fog", second_pass={"tone_map": 0.3}), TWO, VAE).preset.tone_map == 0.3
    assert complete(Request("fog"), TWO, VAE).preset.tone_map == 0.6
    same = Request("fog", tone_map=0.3, second_pass={"tone_map": 0.3})
    assert complete(same, TWO, VAE).preset.tone_map == 0.3


def test_presets_are_chosen_by_name():
    assert len(complete(Request("fog", preset="single-pass"), TWO, VAE).preset.passes) == 1
    with pytest.raises(InputError, match="preset 'fast': this bundle has default, single-pass"):
        complete(Request("fog", preset="fast"), TWO, VAE)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"second_pass": {"steps": 3}, "two_passes": False}, "second_pass was given but there is one pass"),
        ({"second_pass": {"height": 3}}, "second_pass 'height': not a field of a pass"),
        (
            {"second_pass": {"steps": 3, "timesteps": (1.0,)}},
            "second_pass.steps and second_pass.timesteps",
        ),
        ({"downscale_factor": 1.0}, "two_passes needs a smaller first pass"),
        ({"downscale_factor": 0.0}, "downscale_factor 0.0: must be between"),
        ({"guidance_scale": (1.0, 2.0)}, "guidance_scale has 2 entries"),
        ({"stg_mode": "residual"}, "stg_mode 'residual': must be one of attention_values"),
        ({"rescaling_scale": 1.5}, "rescaling_scale 1.5: must be between 0 and 1"),
        ({"sampler": "karras"}, "sampler 'karras': must be one of uniform, linear_quadratic"),
        ({"tone_map": 2.0}, "tone_map 2.0: must be between 0 and 1"),
        ({"guidance_rescale": -1.0}, "guidance_rescale -1.0"),
        ({"generator": "mps"}, "generator 'mps': must be one of cpu, cuda"),
        ({"generator": "cuda"}, "generator cuda needs the GPU"),
        ({"noise_layout": "comfy"}, "noise_layout 'comfy': must be one of official, diffusers"),
        ({"noise_dtype": "fp16"}, "noise_dtype 'fp16': must be one of f32, bf16"),
        ({"second_pass": {"steps": 0}}, "second_pass.steps 0: must be between 1 and 1000"),
        ({"tone_map": 0.5, "second_pass": {"tone_map": 0.6}}, "are one setting with two values"),
    ],
)
def test_wrong_passes_get_one_sentence(values, message):
    with pytest.raises(InputError, match=message):
        complete(Request("fog", **values), TWO, VAE)


def test_a_sampler_asked_for_by_name_takes_no_shift():
    facts = SchedulerFacts("uniform", "sd3", 0.1, None)
    own = complete(Request("fog"), PRESETS, VAE).scheduler(facts)
    asked = complete(Request("fog", sampler="uniform"), PRESETS, VAE).scheduler(facts)
    assert (own, asked) == (facts, SchedulerFacts("uniform", None, None, None))


@pytest.mark.parametrize("given", [None, -1])
def test_a_seed_is_drawn_once_and_kept(given):
    seeds = {Request("fog", seed=given).seed for _ in range(20)}
    assert len(seeds) > 10 and all(0 <= seed < 2**32 for seed in seeds)
    request = Request("fog", seed=given)
    assert replace(request, steps=3).seed == request.seed
    assert json_form.write(request)["seed"] == request.seed
