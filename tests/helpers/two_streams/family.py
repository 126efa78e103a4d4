"""The family as `ltxrt.export.families.Family` describes one."""

from __future__ import annotations

import re
from pathlib import Path

from ltxrt.engines.errors import CheckpointError
from ltxrt.export.checkpoint.safetensors import SafetensorsFile
from ltxrt.export.components import Component
from ltxrt.export.graph.fp8 import Layout
from two_streams.checkpoint import MODULES
from two_streams.checkpoint import open_checkpoint as _open
from two_streams.facts import NAME, DenoiserFacts, Facts, Preset, ReaderFacts, SpeakerFacts

COMPONENTS = ("reader", "denoiser", "speaker")
SOURCES = ()
PREVIEWED = ""
REPOSITORIES = ()
TRACE_SIZES = {"B": 2, "V": 12, "S": 5, "T": 7}
_LAYOUT = Layout(
    weight=re.compile(r"blocks\.(\d+)\.(?:video|sound)\.(?:own|cross)\.(?:q|k|v|out)\.weight"),
    values=re.compile(r"(blocks\.(\d+)\.(?:video|sound)\.own)\.v\.weight"),
    outer=lambda layers: 1,
)


def recognises(path):
    try:
        return SafetensorsFile(path).metadata.get("family") == NAME
    except CheckpointError:
        return False


def open_checkpoint(path: Path, sources, version, check=True):
    return _open(path, check)


def components():
    rows = {name: Component(name, module) for name, module in MODULES.items()}
    return {**rows, "denoiser": Component("denoiser", MODULES["denoiser"], fp8=_LAYOUT)}


def facts(checkpoint):
    reader, denoiser, speaker = (checkpoint.parts[n].config for n in COMPONENTS)
    return Facts(
        ReaderFacts(reader.width),
        DenoiserFacts(denoiser.layers, denoiser.video_channels, denoiser.sound_channels, denoiser.text_width),
        SpeakerFacts(speaker.channels, speaker.stride),
    )


def presets(checkpoint):
    return {"default": Preset(steps=4)}


def describe_part(path):
    return None


def preview(checkpoint, report):
    return None


def companions(checkpoint, components):
    return {}


def describe(checkpoint):
    return [f"{checkpoint.source}: two streams {checkpoint.version.name}"]


def notes(checkpoint, names, whole):
    return [f"two streams {checkpoint.version.name}"]
