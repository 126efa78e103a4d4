"""Two passes and the latent upsampler between them: against diffusers, and with every preset."""

import dataclasses

import numpy as np
import pytest
import torch
from diffusers import LTXConditionPipeline, LTXLatentUpsamplePipeline
from diffusers.pipelines.ltx.modeling_latent_upsampler import LTXLatentUpsamplerModel
from safetensors.torch import load_file

from ltxrt.engines.bundle import read_bundle
from ltxrt.engines.errors import InputError, worded
from ltxrt.export.ltxv import versions
from ltxrt.runtime.ltxv import notes
from ltxrt.runtime.ltxv.pipeline import Pipeline
from ltxrt.runtime.request.request import Request

PROMPT, NEGATIVE = "waves break on a rocky shore", "blurry"


def theirs(folder, upsampler, adain):
    """Frames (F,H,W,3) in 0..1 of the two pipelines in turn, from one generator."""
    pipeline = LTXConditionPipeline.from_pretrained(folder, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    model = LTXLatentUpsamplerModel(16, 64, 2, 3, True, False)
    model.load_state_dict(load_file(upsampler), strict=True)
    generator = torch.Generator("cpu").manual_seed(11)
    common = {
        "prompt": PROMPT,
        "negative_prompt": NEGATIVE,
        "num_frames": 17,
        "frame_rate": 24,
        "guidance_scale": 2.0,
        "max_sequence_length": 256,
        "generator": generator,
    }
    first = pipeline(height=64, width=96, num_inference_steps=5, output_type="latent", **common).frames
    larger = LTXLatentUpsamplePipeline(pipeline.vae, model.eval())(
        latents=first, adain_factor=adain, output_type="latent"
    ).frames
    video = pipeline(
        height=128,
        width=192,
        latents=larger,
        num_inference_steps=8,
        denoise_strength=0.5,
        output_type="np",
        **common,
    )
    return video.frames[0]


@pytest.mark.parametrize("adain", [0.0, 1.0])
def test_two_passes_match_diffusers(adain, two_pass_bundle, diffusers_folder, tiny_upsampler, monkeypatch):
    request = Request(
        PROMPT,
        NEGATIVE,
        height=128,
        width=192,
        num_frames=17,
        frame_rate=24,
        two_passes=True,
        downscale_factor=0.5,
        adain_factor=adain,
        steps=5,
        guidance_scale=2.0,
        second_pass={"steps": 8, "skip_initial": 4, "guidance_scale": 2.0},
        decode_timestep=0.0,
        decode_noise_scale=0.0,
        seed=11,
        reference="diffusers-condition",
    )
    kept = []
    monkeypatch.setattr(
        "ltxrt.runtime.ltxv.decode.to_uint8", lambda pixels: kept.append(pixels) or np.arange(2)
    )
    Pipeline(two_pass_bundle).generate(request)
    ours = (np.concatenate(kept, axis=1) / 2 + 0.5).clip(0, 1).transpose(1, 2, 3, 0)
    wanted = theirs(diffusers_folder("0.9.5"), tiny_upsampler("latent_upsampler"), adain)
    assert ours.shape == wanted.shape and wanted.std() > 0.05
    assert -10 * np.log10(np.mean((ours.astype(np.float64) - wanted) ** 2)) >= 60


TWO = [v.name for v in versions.VERSIONS if len(v.presets["default"].passes) == 2]


@pytest.mark.parametrize("name", TWO)
def test_every_preset_of_two_passes_makes_a_video(name, two_pass_bundle):
    """The official settings, on a model of six blocks' worth of lists: sizes, stages and steps."""
    row = versions.version(name)
    bundle = read_bundle(two_pass_bundle)
    facts = dataclasses.replace(bundle.facts, scheduler=row.scheduler)
    pipeline = Pipeline(
        dataclasses.replace(bundle, facts=facts, presets=versions.presets(row, facts.transformer.layers))
    )
    events = []
    request = Request(PROMPT, height=160, width=160, num_frames=9)
    stream = pipeline.stream(request, events.append)
    frames = np.concatenate(list(stream.frames))
    assert frames.shape == (9, 160, 160, 3) and frames.std() > 5
    assert [one.size.height for one in stream.plan.passes] == [96, 192]
    stages = [event.stage for event in events if event.step is None]
    assert stages == ["text encoder", "transformer", "latent upsampler", "transformer", "image decoder"]
    assert sum(event.step is not None for event in events) == (27 + 13 if name.endswith("-dev") else 7 + 3)


@pytest.fixture
def without_upsampler(tiny_bundle):
    """A pipeline of a bundle whose default preset has two passes, and which has no upsampler."""
    bundle = read_bundle(tiny_bundle("0.9.5"))
    row = versions.version("0.9.7-distilled")
    return Pipeline(dataclasses.replace(bundle, presets=versions.presets(row, 2)))


def test_without_an_upsampler_the_default_is_the_single_pass_and_it_is_said(without_upsampler):
    default = without_upsampler.plan(Request("fog"))
    single = without_upsampler.plan(Request("fog", preset="single-pass"))
    assert default.settings == single.settings and len(default.passes) == 1
    (note,) = notes(default)
    assert worded(note, str) == (
        "note: the bundle has no latent_upsampler for two passes, so that its default is preset single-pass"
    )
    assert notes(single) == []
    shapes = [without_upsampler.latents(Request("fog", preset=name, height=64, width=64, num_frames=9)).shape
              for name in ("default", "single-pass")]  # fmt: skip
    assert shapes[0] == shapes[1] == (1, 16, 2, 2, 2)


@pytest.mark.parametrize("settings", [{"two_passes": True}, {"second_pass": {"steps": 3}}])
def test_without_an_upsampler_two_passes_are_refused_with_the_way_out(without_upsampler, settings):
    pipeline = without_upsampler
    with pytest.raises(
        InputError,
        match=r"has no latent_upsampler, .*--upsampler FILE .*; or run one pass: preset single-pass",
    ):
        pipeline.settings(Request("fog", **settings))
    assert pipeline.settings(Request("fog", preset="single-pass")).video.height == 704


def test_a_first_pass_of_nothing_is_refused(two_pass_bundle):
    request = Request("fog", two_passes=True, downscale_factor=0.3, height=64, width=64)
    with pytest.raises(InputError, match=r"downscale_factor 0\.3 of 64x64 leaves 0x0"):
        Pipeline(two_pass_bundle).settings(request)
