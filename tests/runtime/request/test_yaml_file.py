import os

import numpy as np
import pytest

from ltxrt.engines.errors import InputError
from ltxrt.runtime.ltxv.guidance import GuidanceLists, plan
from ltxrt.runtime.request.plain_yaml import SIZE_LIMIT
from ltxrt.runtime.request.yaml_file import read
from ltxrt.runtime.sampling.schedule import linear_quadratic, skip

# What the eleven official files have in common; the rest is put together below from a table of their fields.
COMMON = """
checkpoint_path: "{0}.safetensors"
stg_mode: "attention_values" # options: "attention_values", "attention_skip", "residual", "transformer_block"
decode_timestep: 0.05
decode_noise_scale: 0.025
text_encoder_model_name_or_path: "PixArt-alpha/PixArt-XL-2-1024-MS"
precision: "{1}"
sampler: "from_checkpoint"
prompt_enhancement_words_threshold: 120
prompt_enhancer_image_caption_model_name_or_path: "MiaoshouAI/Florence-2-large-PromptGen-v2.0"
prompt_enhancer_llm_model_name_or_path: "unsloth/Llama-3.2-3B-Instruct"
stochastic_sampling: {2}
"""
GUIDED = """
pipeline_type: base
guidance_scale: 3
stg_scale: 1
rescaling_scale: 0.7
skip_block_list: [19]
num_inference_steps: 40
"""
UNGUIDED = """
pipeline_type: base
guidance_scale: 1
stg_scale: 0
rescaling_scale: 1
num_inference_steps: 8
"""
TWO_PASSES = """
pipeline_type: multi-scale
downscale_factor: 0.6666666
spatial_upscaler_model_path: "ltxv-spatial-upscaler-0.9.8.safetensors"
"""
DEV = f"""{TWO_PASSES}
first_pass:
  guidance_scale: [1, 1, 6, 8, 6, 1, 1]
  stg_scale: [0, 0, 4, 4, 4, 2, 1]
  rescaling_scale: [1, 1, 0.5, 0.5, 1, 1, 1]
  guidance_timesteps: [1.0, 0.996,  0.9933, 0.9850, 0.9767, 0.9008, 0.6180]
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
DISTILLED = f"""{TWO_PASSES}
first_pass:
  timesteps: [1.0000, 0.9937, 0.9875, 0.9812, 0.9750, 0.9094, 0.7250]
  guidance_scale: 1
  stg_scale: 0
  rescaling_scale: 1
  skip_block_list: [42]

second_pass:
  timesteps: [0.9094, 0.7250, 0.4219]
  guidance_scale: 1
  stg_scale: 0
  rescaling_scale: 1
  skip_block_list: [42]
"""
TONE_MAP = "  tone_map_compression_ratio: 0.6\n"


def expected(guidance, stg, rescaling, stochastic=False, **others):
    lists = {"guidance_scale": guidance, "stg_scale": stg, "rescaling_scale": rescaling}
    return {**lists, "stg_mode": "attention_values", "stochastic": stochastic, **others}


GUIDED_PASS = expected((3.0,), (1.0,), (0.7,), steps=40, skip_block_list=((19,),))
UNGUIDED_PASS = expected((1.0,), (0.0,), (1.0,), stochastic=True, steps=8)
DEV_FIRST = expected(
    (1.0, 1.0, 6.0, 8.0, 6.0, 1.0, 1.0),
    (0.0, 0.0, 4.0, 4.0, 4.0, 2.0, 1.0),
    (1.0, 1.0, 0.5, 0.5, 1.0, 1.0, 1.0),
    guidance_timesteps=(1.0, 0.996, 0.9933, 0.985, 0.9767, 0.9008, 0.618),
    skip_block_list=((), (11, 25, 35, 39), (22, 35, 39), (28,), (28,), (28,), (28,)),
    steps=30,
    skip_final=3,
    cfg_star=True,
)
DEV_SECOND = expected(
    (1.0,), (1.0,), (1.0,), guidance_timesteps=(1.0,), skip_block_list=((27,),), steps=30, skip_initial=17
)
DEV_PASSES = (DEV_FIRST, {**DEV_SECOND, "cfg_star": True})
FEW_STEPS = expected((1.0,), (0.0,), (1.0,), skip_block_list=((42,),))
DISTILLED_PASSES = (
    {**FEW_STEPS, "timesteps": (1.0, 0.9937, 0.9875, 0.9812, 0.975, 0.9094, 0.725)},
    {**FEW_STEPS, "timesteps": (0.9094, 0.725, 0.4219)},
)
TONE_MAPPED = (DISTILLED_PASSES[0], {**DISTILLED_PASSES[1], "tone_map": 0.6})

# Name, precision, stochastic_sampling, what is not common; and the passes it must become.
OFFICIAL = {
    "ltx-video-2b-v0.9": ("bfloat16", "false", GUIDED, (GUIDED_PASS,)),
    "ltx-video-2b-v0.9.1": ("bfloat16", "false", GUIDED, (GUIDED_PASS,)),
    "ltx-video-2b-v0.9.5": ("bfloat16", "false", GUIDED, (GUIDED_PASS,)),
    "ltxv-2b-0.9.6-dev-04-25": ("bfloat16", "false", GUIDED, (GUIDED_PASS,)),
    "ltxv-2b-0.9.6-distilled-04-25": ("bfloat16", "true", UNGUIDED, (UNGUIDED_PASS,)),
    "ltxv-13b-0.9.8-dev": ("bfloat16", "false", DEV, DEV_PASSES),
    "ltxv-13b-0.9.8-dev-fp8": ("float8_e4m3fn", "false", DEV, DEV_PASSES),
    "ltxv-13b-0.9.8-distilled": ("bfloat16", "false", DISTILLED + TONE_MAP, TONE_MAPPED),
    "ltxv-13b-0.9.8-distilled-fp8": ("float8_e4m3fn", "false", DISTILLED + TONE_MAP, TONE_MAPPED),
    "ltxv-2b-0.9.8-distilled": ("bfloat16", "false", DISTILLED, DISTILLED_PASSES),
    "ltxv-2b-0.9.8-distilled-fp8": ("float8_e4m3fn", "false", DISTILLED, DISTILLED_PASSES),
}
IGNORED = (
    "checkpoint_path",
    "text_encoder_model_name_or_path",
    "precision",
    "prompt_enhancement_words_threshold",
    "prompt_enhancer_image_caption_model_name_or_path",
    "prompt_enhancer_llm_model_name_or_path",
)


@pytest.fixture
def settings(tmp_path):
    """Reads a file with the given content."""

    def write_and_read(content):
        path = tmp_path / "s.yaml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read(path)

    return write_and_read


@pytest.mark.parametrize("name", OFFICIAL)
def test_official_files_as_they_are(settings, name):
    precision, stochastic, own, passes = OFFICIAL[name]
    found = settings(COMMON.format(name, precision, stochastic) + own)
    assert found.passes == passes
    downscale = {"downscale_factor": 0.6666666} if len(passes) == 2 else {}
    assert found.values == {"decode_timestep": 0.05, "decode_noise_scale": 0.025, **downscale}
    assert "sampler" not in found.values
    upscaler = ("spatial_upscaler_model_path",) if len(passes) == 2 else ()
    assert found.ignored == (*IGNORED, *upscaler)


def test_the_lists_read_are_those_that_guidance_takes(settings):
    first = dict(settings(DEV).passes[0])
    sigmas = skip(linear_quadratic(first.pop("steps")).astype(np.float32), 0, first.pop("skip_final"))
    steps = plan(GuidanceLists(**first), sigmas, 48)
    assert [step.streams["video"].cfg for step in steps][:6] == [1, 1, 1, 6, 6, 8]


# Key, what the file says, what is read.
OUR_VALUES = [
    ("prompt", '"waves: they break"', "waves: they break"),
    ("negative-prompt", "''", ""),
    ("height", "512", 512),
    ("width", "768", 768),
    ("num-frames", "97", 97),
    ("frame-rate", "24", 24.0),
    ("seed", str(2**64 - 1), 2**64 - 1),
    ("decode-timestep", "0", 0.0),
    ("decode-noise-scale", "2.5e-1", 0.25),
    ("image-noise-scale", ".15", 0.15),
    ("max-tokens", "128", 128),
    ("reference", "diffusers", "diffusers"),
    ("downscale-factor", "0.5", 0.5),
]
OUR_PASS = [
    ("steps", "20", 20),
    ("skip-initial", "2", 2),
    ("skip-final", "1", 1),
    ("guidance-scale", "3", (3.0,)),
    ("stg-scale", "[1.5]", (1.5,)),
    ("rescaling-scale", "0.5", (0.5,)),
    ("guidance-timesteps", "null", None),
    ("skip-block-list", "[]", ((),)),
    ("stg-mode", "transformer_block", "transformer_block"),
    ("cfg-star", "no", False),
    ("tone-map", "0", 0.0),
    ("stochastic", "on", True),
]


def test_every_field_under_our_own_names(settings):
    found = settings("".join(f"{key}: {text}\n" for key, text, _ in OUR_VALUES + OUR_PASS))
    assert found.values == {key.replace("-", "_"): value for key, _, value in OUR_VALUES}
    assert found.passes == ({key.replace("-", "_"): value for key, _, value in OUR_PASS},)
    assert type(found.values["frame_rate"]) is float and type(found.passes[0]["guidance_scale"][0]) is float
    assert found.ignored == ()


def test_a_file_without_passes(settings):
    found = settings("prompt: fog\nimage_cond_noise_scale: 0\nstochastic_sampling: true\nprecision: bf16\n")
    assert found.values == {"prompt": "fog", "image_noise_scale": 0.0, "stochastic": True}
    assert (found.passes, found.ignored) == ((), ("precision",))


def test_a_base_file_with_nothing_of_its_pass(settings):
    assert settings("pipeline_type: base").passes == ({},)


def test_the_top_level_holds_for_both_passes_unless_a_pass_says_otherwise(settings):
    found = settings(
        "stg_mode: stg_as\nstochastic: true\nguidance_scale: 2\n"
        "first_pass: {}\nsecond_pass: {stochastic: false, stg_mode: stg_t, timesteps: [0.5]}\n"
    )
    shared = {"guidance_scale": (2.0,)}
    assert found.passes == (
        {**shared, "stg_mode": "attention_skip", "stochastic": True},
        {**shared, "stg_mode": "transformer_block", "stochastic": False, "timesteps": (0.5,)},
    )
    assert found.values == {}


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ("attention_values", "attention_values"),
        ("stg_av", "attention_values"),
        ("STG_AV", "attention_values"),
        ("attention-skip", "attention_skip"),
        ("stg_as", "attention_skip"),
        ("stg_t", "transformer_block"),
    ],
)
def test_stg_modes(settings, text, mode):
    assert settings(f"stg_mode: {text}").passes == ({"stg_mode": mode},)


@pytest.mark.parametrize(
    ("text", "sampler"),
    [("from_checkpoint", None), ("uniform", "uniform"), ("Linear_Quadratic", "linear_quadratic")],
)
def test_samplers(settings, text, sampler):
    assert settings(f"sampler: {text}").values.get("sampler") == sampler


@pytest.mark.parametrize(
    ("text", "blocks"),
    [("[19, 20]", ((19, 20),)), ("[[1, 2], []]", ((1, 2), ())), ("[[7]]", ((7,),)), ("[[]]", ((),))],
)
def test_block_lists(settings, text, blocks):
    assert settings(f"skip_block_list: {text}").passes == ({"skip_block_list": blocks},)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        # names
        ("promt: x", "s.yaml: unknown key 'promt'; the nearest known one is prompt"),
        ("num-inference-step: 3", "unknown key 'num-inference-step'; .* is num_inference_steps"),
        ("xyzzyx: 1", "unknown key 'xyzzyx'; known here are prompt, negative_prompt, .*second_pass$"),
        ("1: 2", "unknown key '1'"),
        ("on: 2", "unknown key 'True'"),
        ("steps: 3\nnum_inference_steps: 3", "s.yaml: steps and num_inference_steps are one setting"),
        ("num_frames: 9\nnum-frames: 9", "num_frames and num-frames are one setting; give it once"),
        ("seed: 1\nwidth: 64\nseed: 2", "s.yaml, line 3: 'seed' is given twice"),
        ("first_pass: {stg_scale: 1, stg_scale: 2}\nsecond_pass: {}", "'stg_scale' is given twice"),
        # passes
        ("first_pass: {step: 3}\nsecond_pass: {}", "first_pass: unknown key 'step'; .* is steps"),
        ("first_pass: {decode_timestep: 0}\nsecond_pass: {}", "decode_timestep belongs at the top level"),
        ("first_pass: {first_pass: {}}\nsecond_pass: {}", "first_pass belongs at the top level"),
        (
            "first_pass: {image_cond_noise_scale: 0}\nsecond_pass: {}",
            "first_pass: image_cond_noise_scale bel",
        ),
        ("first_pass: {}", "first_pass is given without second_pass"),
        ("second_pass: {}", "second_pass is given without first_pass"),
        ("first_pass:\nsecond_pass: {}", "first_pass is empty; it must be a block of settings"),
        ("first_pass: {}\nsecond_pass: [1]", r"second_pass is \[1\]; it must be a block"),
        ("pipeline_type: base\nfirst_pass: {}\nsecond_pass: {}", "pipeline_type is base but there are two"),
        ("pipeline_type: multi-scale\nsteps: 3", "multi-scale; it needs first_pass and second_pass"),
        ("pipeline_type: multi", "pipeline_type is the text 'multi'; it must be one of base, multi-scale"),
        (
            "num_inference_steps: 3\ntimesteps: [1]",
            "num_inference_steps and timesteps are given for one pass",
        ),
        (
            "steps: 3\nfirst_pass: {timesteps: 1}\nsecond_pass: {}",
            "first_pass: num_inference_steps and times",
        ),
        (
            "timesteps: [1, 0.5]\nskip_initial: 1",
            "skip_initial_inference_steps 1 beside timesteps skips noth",
        ),
        # types
        ("steps: '3'", "steps is the text '3'; it must be a whole number, without quotes"),
        ("steps: three", "steps is the text 'three'; it must be a whole number$"),
        ("steps: 3.0", r"steps is 3.0; it must be a whole number$"),
        ("num_inference_steps: true", "s.yaml: num_inference_steps is true; it must be a whole number"),
        ("seed:", "seed is empty; it must be a whole number"),
        ("frame_rate: yes", "frame_rate is true; it must be a number"),
        ("decode_timestep: 1e-3", "is the text '1e-3'; .* a dot before an exponent as in 1.0e-3"),
        ("decode_timestep: .nan", "decode_timestep is nan; it must be a finite number"),
        ("decode_timestep: -.inf", "decode_timestep is -inf; it must be a finite number"),
        (f"frame_rate: {'9' * 400}", "it must be a finite number"),
        ("frame_rate: [24]", r"frame_rate is \[24\]; it must be a number"),
        ("prompt: 3", "prompt is 3; it must be text; put it in quotes"),
        ("prompt: no", "prompt is false; it must be text"),
        ("reference: [official]", "it must be one of official, diffusers"),
        ("stochastic_sampling: 1", "stochastic_sampling is 1; it must be true or false"),
        ("cfg_star_rescale: 'true'", "cfg_star_rescale is the text 'true'; it must be true or false"),
        ("stg_scale: '1'", "stg_scale is the text '1'; it must be a number"),
        ("stg_scale: [1, true]", r"stg_scale\[1\] is true; it must be a number"),
        ("guidance_scale: [[1]]", r"guidance_scale\[0\] is \[1\]; it must be a number"),
        ("guidance_scale: {a: 1}", "guidance_scale is .*; it must be a number"),
        ("timesteps: []", r"timesteps is \[\]; it must be one or more numbers"),
        ("timesteps: null", "timesteps is empty; it must be a number"),
        ("skip_block_list: 19", r"skip_block_list is 19; it must be a list of block numbers such as \[19\]"),
        ("skip_block_list: [19, [20]]", "block numbers only, or lists of block numbers only"),
        ("skip_block_list: [true]", r"skip_block_list\[0\] is true; it must be a whole number"),
        ("skip_block_list: [[1], [2.5]]", r"skip_block_list\[1\]\[0\] is 2.5; it must be a whole number"),
        (
            "stg_mode: residual",
            "residual', which has no effect in the official pipeline; give one of attention_values",
        ),
        ("stg_mode: stg_r", "no effect in the official pipeline"),
        ("stg_mode: values", "stg_mode is the text 'values'; it must be one of stg_av, .*, attention_values"),
        ("stg_mode: [stg_av]", "stg_mode is .*; it must be one of"),
        ("sampler: constant", "it must be one of from_checkpoint, uniform, linear_quadratic"),
        ("sampler: null", "sampler is empty; it must be one of"),
        # YAML
        ("", "s.yaml is empty; it must hold lines such as"),
        ("# nothing\n", "it must hold lines such as"),
        ("{}", "it must hold lines such as"),
        ("- steps", "it must hold lines such as"),
        ("a stroll on the beach", "holds the text 'a stroll on the beach'; it must hold lines"),
        ("steps: 3\n  width: 4", "s.yaml is not valid YAML at line 2: "),
        ("steps: [3", "is not valid YAML at line"),
        ("\tsteps: 3", "is not valid YAML at line 1"),
        ("prompt: 'a\x00b'", "is not valid YAML: "),
        ("steps: 3\n---\nsteps: 4", "is not valid YAML at line 2"),
        (b"prompt: \xff\xfe", "is not UTF-8 text at byte 8"),
        ("stg_scale: &a [1]\nguidance_scale: *a", "line 1: anchors and aliases"),
        ("width: *a", "line 1: anchors and aliases"),
        ("<<: {steps: 3}", "line 1: a key must be the name of a setting"),
        ("? [a]\n: 1", "a key must be the name of a setting"),
        ("2024-13-45: 1", "a key must be the name of a setting"),
        ("prompt: !!python/object/apply:os.getcwd []", "line 1: tag 'tag:yaml.org,2002:python/object/apply"),
        ("steps: !!int '3'", "tag 'tag:yaml.org,2002:int' is not read; give the plain value"),
        ("stg_scale: " + "[" * 100_000, "nested deeper than 8"),
        ("stg_scale: [" + "1, " * 10_000 + "1]", "over 10000 values; that is no settings file"),
        ("{prompt: " * 9, "nested deeper than 8"),
        ("seed: 0777", "s.yaml, line 1: 0777 is not a plain decimal number"),
        ("seed: 1_000", "1_000 is not a plain decimal number"),
        ("seed: 0x10", "0x10 is not a plain decimal number"),
        ("seed: 0b1", "0b1 is not a plain decimal number"),
        ("stg_scale: [1:30]", "1:30 is not a plain decimal number"),
        ("seed: " + "9" * 5000, "is not a plain decimal number"),
        ("? " + "9" * 5000 + "\n: 1", "is not a plain decimal number"),
        ("prompt: 2024-13-45", "2024-13-45 is not a plain decimal number; .* quotes around text"),
    ],
)
def test_refused(settings, content, message):
    with pytest.raises(InputError, match=message) as error:
        settings(content)
    assert "s.yaml" in str(error.value) and "\n" not in str(error.value) and len(str(error.value)) < 1000


def test_the_size_is_bounded(settings):
    line = b"steps: 3\n#"
    assert settings(line.ljust(SIZE_LIMIT, b"-")).passes == ({"steps": 3},)
    with pytest.raises(InputError, match=f"has more than {SIZE_LIMIT} bytes"):
        settings(line.ljust(SIZE_LIMIT + 1, b"-"))


def test_byte_order_mark_carriage_returns_and_a_path_as_text(tmp_path):
    (tmp_path / "s.yaml").write_bytes(b"\xef\xbb\xbfsteps: 3\r\nwidth: 64\r\n")
    assert read(str(tmp_path / "s.yaml")).values == {"width": 64}


def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name in ("absent.yaml", "pipe", "."):
        with pytest.raises(InputError, match="is not there or not a regular file"):
            read(tmp_path / name)


def test_a_file_that_the_system_does_not_give(tmp_path):
    with pytest.raises(InputError, match="cannot be read: File name too long"):
        read(tmp_path / ("s" * 300))
