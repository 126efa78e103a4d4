"""Whole runs against diffusers' pipelines, which read the same weights from a diffusers folder."""

import numpy as np
import pytest
import torch
from diffusers import LTXImageToVideoPipeline, LTXPipeline
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

from ltxrt.runtime.pipeline import Pipeline
from ltxrt.runtime.request import Request

PROMPT = "waves break on a rocky shore, the camera drifts to the left"
NEGATIVE = "blurry"


def psnr(ours, theirs):
    """Of frames in 0..1, in decibels."""
    assert ours.shape == theirs.shape
    assert theirs.std() > 0.05, "the reference made no picture to compare with"
    error = np.mean((ours.astype(np.float64) - theirs.astype(np.float64)) ** 2)
    return np.inf if error == 0 else -10 * np.log10(error)


def frames_of(pipeline, request, monkeypatch):
    """Our frames in 0..1 before they are rounded to 8 bits, which alone would cap the PSNR at 59 dB."""
    kept = []
    monkeypatch.setattr("ltxrt.runtime.pipeline.to_uint8", lambda pixels: kept.append(pixels) or np.arange(2))
    pipeline.generate(request)
    return (kept[0] / 2 + 0.5).clip(0, 1).transpose(1, 2, 3, 0)


def run_reference(pipeline_class, folder, **options):
    pipeline = pipeline_class.from_pretrained(folder, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator("cpu").manual_seed(options.pop("seed"))
    return pipeline(generator=generator, output_type="np", **options).frames[0]


# 0.9.1's decoder draws its own noise maps from torch's global generator: its decoder is compared alone,
# with given maps, in tests/export.
@pytest.mark.parametrize("version", ["0.9.0", "0.9.5"])
@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_text_to_video_matches_diffusers(version, guidance_scale, tiny_bundle, diffusers_folder, monkeypatch):
    size = {"height": 96, "width": 160, "num_frames": 17, "frame_rate": 25, "guidance_scale": guidance_scale}
    theirs = run_reference(
        LTXPipeline,
        diffusers_folder(version),
        prompt=PROMPT,
        negative_prompt=NEGATIVE,
        num_inference_steps=6,
        seed=42,
        **size,
    )
    request = Request(
        PROMPT,
        NEGATIVE,
        steps=6,
        seed=42,
        decode_timestep=0.0,
        decode_noise_scale=0.0,
        reference="diffusers",
        **size,
    )
    ours = frames_of(Pipeline(tiny_bundle(version)), request, monkeypatch)
    assert psnr(ours, theirs) >= 60


@pytest.mark.parametrize("version", ["0.9.0", "0.9.5"])
def test_image_to_video_matches_diffusers(version, tiny_bundle, diffusers_folder, monkeypatch):
    # diffusers samples the image's posterior; we take its mean, and so shall the reference here.
    monkeypatch.setattr(DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mode())
    rng = np.random.default_rng(5)
    image = np.tanh(rng.standard_normal((3, 96, 128), dtype=np.float32))
    size = {"height": 96, "width": 128, "num_frames": 25, "frame_rate": 24, "guidance_scale": 2.5}
    theirs = run_reference(
        LTXImageToVideoPipeline,
        diffusers_folder(version),
        image=torch.from_numpy(image)[None],
        prompt=PROMPT,
        negative_prompt=NEGATIVE,
        num_inference_steps=5,
        seed=7,
        **size,
    )
    request = Request(
        PROMPT,
        NEGATIVE,
        image=image,
        steps=5,
        seed=7,
        decode_timestep=0.0,
        decode_noise_scale=0.0,
        reference="diffusers",
        **size,
    )
    ours = frames_of(Pipeline(tiny_bundle(version)), request, monkeypatch)
    assert psnr(ours, theirs) >= 60


def test_another_seed_does_not_match(tiny_bundle, monkeypatch):
    """The comparison can fail: its metric tells two seeds apart."""
    pipeline = Pipeline(tiny_bundle("0.9.5"))
    size = {"height": 96, "width": 160, "num_frames": 17, "steps": 3}
    one = frames_of(pipeline, Request(PROMPT, seed=1, **size), monkeypatch)
    two = frames_of(pipeline, Request(PROMPT, seed=2, **size), monkeypatch)
    assert psnr(one, two) < 30
