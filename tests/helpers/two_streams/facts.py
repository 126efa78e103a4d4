"""What a bundle says of the model, and its components' contracts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from ltxrt.engines.contract import Contract, Tensor
from ltxrt.engines.family import Component, Family, ProfileForm
from ltxrt.engines.parsing.schema import Within
from ltxrt.engines.precision import PRECISIONS

NAME = "two-streams"

Size = Annotated[int, Within(1, 4096)]


@dataclass(frozen=True)
class ReaderFacts:
    width: Size


@dataclass(frozen=True)
class DenoiserFacts:
    layers: Size
    video_channels: Size
    sound_channels: Size
    text_width: Size


@dataclass(frozen=True)
class SpeakerFacts:
    channels: Size
    stride: Size


@dataclass(frozen=True)
class Facts:
    reader: ReaderFacts | None
    denoiser: DenoiserFacts | None
    speaker: SpeakerFacts | None


@dataclass(frozen=True)
class Preset:
    steps: Size


def reader(facts: ReaderFacts) -> Contract:
    """Bytes, without a mask, to features."""
    return Contract(
        "reader",
        (Tensor("text_bytes", "i64", ("B", "T")),),
        (Tensor("features", "f32", ("B", "T", facts.width)),),
    )


def denoiser(facts: DenoiserFacts) -> Contract:
    """Two streams of lengths of their own to two velocities.

    `keep_mask[l, m, b]` False leaves out, in block l of sample b: 0 the video's own attention, 1 the sound's,
    2 what the video takes from the sound, 3 what the sound takes from the video.
    """
    video, sound = ("B", "V", facts.video_channels), ("B", "S", facts.sound_channels)
    return Contract(
        "denoiser",
        (
            Tensor("video", "f32", video),
            Tensor("sound", "f32", sound),
            Tensor("noise_levels", "f32", ("B", 2)),
            Tensor("features", "f32", ("B", "T", facts.text_width)),
            Tensor("keep_mask", "bool", (facts.layers, 4, "B")),
        ),
        (Tensor("video_velocity", "f32", video), Tensor("sound_velocity", "f32", sound)),
        tokens=("V", "S"),
    )


def speaker(facts: SpeakerFacts) -> Contract:
    """Sound tokens to samples."""
    return Contract(
        "speaker",
        (Tensor("sound", "f32", ("B", "S", facts.channels)),),
        (Tensor("samples", "f32", ("B", f"{facts.stride}*S")),),
    )


def _ranges(sizes, facts, max_tokens, extra_frames):
    """Tokens of either stream as they are written; batches of one request's two samples."""
    return {"V": sizes["video"], "S": sizes["sound"], "B": (1, 2, 2), "T": (1, max_tokens, max_tokens)}


TWO_STREAMS = Family(
    NAME,
    "Two streams",
    Facts,
    Preset,
    {
        "reader": Component("reader", reader, "which reads the prompt"),
        "denoiser": Component("denoiser", denoiser, "which denoises", precisions=PRECISIONS),
        "speaker": Component("speaker", speaker, "which is heard"),
    },
    ProfileForm(("video", "sound"), ("24x10", "8..24x4..10"), _ranges),
    lambda preset, facts: "",
)
