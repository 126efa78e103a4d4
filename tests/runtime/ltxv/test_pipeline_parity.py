"""Whole runs against diffusers' pipelines, which read the same weights from a diffusers folder."""

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKLLTXVideo,
    LTXConditionPipeline,
    LTXImageToVideoPipeline,
    LTXPipeline,
)
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from diffusers.pipelines.ltx.pipeline_ltx_condition import LTXVideoCondition

from ltxrt.runtime.ltxv.pipeline import Pipeline
from ltxrt.runtime.media.read import Condition
from ltxrt.runtime.request.request import Request

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
    monkeypatch.setattr(
        "ltxrt.runtime.ltxv.decode.to_uint8", lambda pixels: kept.append(pixels) or np.arange(2)
    )
    pipeline.generate(request)
    return (np.concatenate(kept, axis=1) / 2 + 0.5).clip(0, 1).transpose(1, 2, 3, 0)


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


CLIP = np.tanh(np.random.default_rng(8).standard_normal((3, 33, 96, 128), dtype=np.float32))
IMAGE, VIDEO = CLIP[:, 0], CLIP[:, :17]
CONDITIONS = {
    "image at 0": [(IMAGE, 0, 1.0)],
    "image in the middle": [(IMAGE, 11, 1.0)],
    "weak image": [(IMAGE, 0, 0.6)],
    "video prefix": [(VIDEO, 0, 1.0)],
    "video later": [(VIDEO, 8, 0.8)],
    "several": [(VIDEO[:, :9], 0, 1.0), (IMAGE, 19, 0.7), (CLIP[:, -1], 32, 1.0)],
}


def diffusers_condition(media, frame, strength):
    if media.ndim == 3:
        return LTXVideoCondition(image=torch.from_numpy(media)[None], frame_index=frame, strength=strength)
    video = torch.from_numpy(np.ascontiguousarray(media.transpose(1, 0, 2, 3)))
    return LTXVideoCondition(video=video, frame_index=frame, strength=strength)


@pytest.mark.parametrize("name", CONDITIONS)
def test_conditions_match_diffusers(name, tiny_bundle, diffusers_folder, monkeypatch):
    monkeypatch.setattr(DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mode())
    size = {"height": 96, "width": 128, "num_frames": 33, "frame_rate": 24, "guidance_scale": 2.5}
    theirs = run_reference(
        LTXConditionPipeline,
        diffusers_folder("0.9.5"),
        conditions=[diffusers_condition(*one) for one in CONDITIONS[name]],
        prompt=PROMPT,
        negative_prompt=NEGATIVE,
        num_inference_steps=5,
        max_sequence_length=256,
        decode_timestep=0.05,
        decode_noise_scale=0.025,
        seed=7,
        **size,
    )
    request = Request(
        PROMPT,
        NEGATIVE,
        conditions=tuple(Condition(*one) for one in CONDITIONS[name]),
        steps=5,
        seed=7,
        reference="diffusers-condition",
        **size,
    )
    ours = frames_of(Pipeline(tiny_bundle("0.9.5")), request, monkeypatch)
    assert psnr(ours, theirs) >= 60


def encoded(folder, video):
    """A video's normalised latents by diffusers."""
    vae = AutoencoderKLLTXVideo.from_pretrained(folder, subfolder="vae", dtype=torch.float32)
    with torch.no_grad():
        latents = vae.encode(torch.from_numpy(video)[None]).latent_dist.mode()
    return LTXConditionPipeline._normalize_latents(latents, vae.latents_mean, vae.latents_std)


def test_video_to_video_matches_diffusers(tiny_bundle, diffusers_folder, monkeypatch):
    folder = diffusers_folder("0.9.5")
    size = {"height": 96, "width": 128, "num_frames": 17, "frame_rate": 24, "guidance_scale": 2.5}
    theirs = run_reference(
        LTXConditionPipeline,
        folder,
        latents=encoded(folder, VIDEO),
        denoise_strength=0.6,
        prompt=PROMPT,
        negative_prompt=NEGATIVE,
        num_inference_steps=8,
        max_sequence_length=256,
        guidance_rescale=0.4,
        seed=3,
        **size,
    )
    request = Request(
        PROMPT,
        NEGATIVE,
        input_video=VIDEO,
        denoise_strength=0.6,
        steps=8,
        guidance_rescale=0.4,
        decode_timestep=0.0,
        decode_noise_scale=0.0,
        seed=3,
        reference="diffusers-condition",
        **size,
    )
    ours = frames_of(Pipeline(tiny_bundle("0.9.5")), request, monkeypatch)
    assert psnr(ours, theirs) >= 60


def test_another_seed_does_not_match(tiny_bundle, monkeypatch):
    """The comparison can fail: its metric tells two seeds apart."""
    pipeline = Pipeline(tiny_bundle("0.9.5"))
    size = {"height": 96, "width": 160, "num_frames": 17, "steps": 3}
    one = frames_of(pipeline, Request(PROMPT, seed=1, **size), monkeypatch)
    two = frames_of(pipeline, Request(PROMPT, seed=2, **size), monkeypatch)
    assert psnr(one, two) < 30
