"""LTX-Video, as `ltxrt.export.families.Family` describes a family. Nothing heavy is imported unasked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ltxrt.export.families import Source

if TYPE_CHECKING:
    from ltxrt.engines.description import Description
    from ltxrt.engines.families.ltxv.facts import Facts, Preset
    from ltxrt.engines.families.preview import Preview
    from ltxrt.engines.progress import Report
    from ltxrt.export.components import Component
    from ltxrt.export.ltxv.open import Checkpoint

COMPONENTS: tuple[str, ...] = (
    "text_encoder",
    "transformer",
    "vae_encoder",
    "vae_decoder",
    "latent_upsampler",
    "temporal_upsampler",
)
SOURCES: tuple[Source, ...] = (
    Source(
        "text_encoder",
        "--text-encoder",
        "DIR",
        "T5 folder with its tokenizer.",
        folders=("text_encoder", "tokenizer"),
    ),
    Source("vae", "--vae", "FILE", "VAE file or folder, if not in CHECKPOINT.", folders=("vae",)),
    Source(
        "upsamplers",
        "--upsampler",
        "FILE",
        "Latent upsampler, spatial or temporal; repeatable.",
        multiple=True,
        folders=("latent_upsampler",),
    ),
)
PREVIEWED = "vae_decoder"
# What the official pipeline's settings name: T5 v1.1 XXL with its tokenizer, for all releases.
TEXT_ENCODER = "PixArt-alpha/PixArt-XL-2-1024-MS"
REPOSITORIES = (
    "Lightricks/LTX-Video",
    "Lightricks/LTX-Video-0.9.5",
    "Lightricks/LTX-Video-0.9.7-dev",
    "Lightricks/LTX-Video-0.9.7-distilled",
    "Lightricks/LTX-Video-0.9.8-13B-distilled",
    "Lightricks/ltxv-spatial-upscaler-0.9.7",
    TEXT_ENCODER,
)
TRACE_SIZES: Mapping[str, int] = {"B": 2, "N": 24, "K": 3, "T": 7, "f": 3, "h": 4, "w": 5}


def recognises(path: Path) -> bool:
    """Everything: what is wrong with a file is said when it is opened."""
    return path.exists()


def open_checkpoint(
    path: Path, sources: Mapping[str, Any], version: str | None, check: bool = True
) -> Checkpoint:
    """A single file or a diffusers folder."""
    from ltxrt.export.ltxv import open as opening

    return opening.open_checkpoint(path, version=version, check=check, **sources)


def components() -> Mapping[str, Component]:
    """The table of components."""
    from ltxrt.export.ltxv import components as table

    return table.COMPONENTS


def facts(checkpoint: Checkpoint) -> Facts:
    """Sizes, statistics and the schedule."""
    from ltxrt.export.ltxv.facts import checkpoint_facts

    return checkpoint_facts(checkpoint)


def presets(checkpoint: Checkpoint) -> dict[str, Preset]:
    """The release's presets, for a transformer of this depth."""
    from ltxrt.export.ltxv import versions

    found = checkpoint.transformer
    return versions.presets(checkpoint.version, found.config.layers if found else checkpoint.version.layers)


def describe_part(path: Path) -> Description | None:
    """An upsampler, a text encoder or a LoRA."""
    from ltxrt.export.ltxv import inspect

    return inspect.describe_part(path)


def preview(checkpoint: Checkpoint, report: Report) -> Preview | None:
    """Fitted on the autoencoder."""
    from ltxrt.export.ltxv.models import preview as colours

    return None if checkpoint.vae is None else colours.fit(checkpoint.vae, report)


def companions(checkpoint: Checkpoint, components: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The text encoder, and the upsampler between the passes of a two-pass release."""
    row = checkpoint.version
    parts = {
        "text_encoder": (TEXT_ENCODER, checkpoint.text_encoder, "text_encoder"),
        "upsamplers": (row.upsampler, checkpoint.latent_upsampler, "latent_upsampler"),
    }
    return {
        source: (reference,)
        for source, (reference, there, component) in parts.items()
        if reference and there is None and (not components or component in components)
    }


def describe(checkpoint: Checkpoint) -> list[str]:
    """Version, components, sizes, dtypes, config and licence."""
    from ltxrt.export.ltxv import inspect

    return inspect.describe(checkpoint)


def notes(checkpoint: Checkpoint, names: Sequence[str], whole: bool) -> list[str]:
    """The release, and what of it is not exported."""
    from ltxrt.export.ltxv import inspect

    return inspect.notes(checkpoint, names, whole)
