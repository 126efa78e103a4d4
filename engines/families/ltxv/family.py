"""LTX-Video as a row of FAMILIES: its components, its profiles' sizes, the size of its presets."""

from __future__ import annotations

from collections.abc import Mapping

from ltxrt.engines.errors import InputError
from ltxrt.engines.families.ltxv import contracts
from ltxrt.engines.families.ltxv.facts import Facts, Preset
from ltxrt.engines.family import Component, Family, ProfileForm, Range
from ltxrt.engines.parsing.sizes import check_size
from ltxrt.engines.precision import PRECISIONS

BATCH = (1, 2, 3)  # negative, positive and perturbed samples of a request, which change from step to step
TIMESTEPS = (1, 1, 8)  # distinct timesteps in a call: one, and one more per strength of conditioning
LARGEST_TABLE = 1 << 28  # elements: a preset's tokens times the transformer's width; a release has 2**26
LARGEST_VIDEO = 1 << 31  # pixels of all frames of a preset; a release has 2**27

COMPONENTS = {
    "text_encoder": Component(
        "text_encoder", contracts.text_encoder, "which reads the prompt", "--text-encoder DIR"
    ),
    "transformer": Component("transformer", contracts.transformer, "which denoises", precisions=PRECISIONS),
    "vae_encoder": Component("vae", contracts.vae_encoder, "which image conditioning needs", videos="some"),
    "vae_decoder": Component("vae", contracts.vae_decoder, "which makes pixels of latents"),
    "latent_upsampler": Component(
        "vae",
        contracts.latent_upsampler,
        "which the second of two passes needs",
        "--upsampler FILE",
        dispensable=("single-pass", "run one pass"),
        videos="some",
    ),
    "temporal_upsampler": Component(
        "vae", contracts.temporal_upsampler, "which doubles the frames", "--upsampler FILE", videos="none"
    ),
}


def profile_ranges(
    sizes: Mapping[str, Range], facts: Facts, max_tokens: int, extra_frames: int
) -> dict[str, Range]:
    """Pixels and frames as latent cells and tokens: N covers the video's own and those of conditions."""
    if facts.vae is None:
        raise InputError("the bundle has no facts of its VAE, which determine profiles; export it too")
    space, time = facts.vae.spatial_compression, facts.vae.temporal_compression
    h = _cells("height", sizes["height"], space, 0)
    w = _cells("width", sizes["width"], space, 0)
    f = _cells("frames", sizes["frames"], time, 1)
    low, usual, high = (f[i] * h[i] * w[i] for i in range(3))
    tokens = (low, usual, high + extra_frames * h[2] * w[2])
    context = (1, max_tokens, max_tokens)
    return {"B": BATCH, "N": tokens, "K": TIMESTEPS, "T": context, "f": f, "h": h, "w": w}


def _cells(name: str, pixels: Range, factor: int, offset: int) -> Range:
    """Pixels along an axis as latent cells: factor·k, or factor·(k − 1) + 1 for frames."""
    for value in pixels:
        check_size(name, value, factor, offset)
    low, usual, high = ((value - offset) // factor + offset for value in pixels)
    return low, usual, high


def preset_problem(preset: Preset, facts: Facts) -> str:
    """Why the preset's size exceeds any release's: presets run without the user having chosen a size."""
    pixels = preset.height * preset.width * preset.num_frames
    elements = 0
    if facts.transformer and facts.vae:
        space, time = facts.vae.spatial_compression, facts.vae.temporal_compression
        tokens = (preset.height // space) * (preset.width // space) * (preset.num_frames // time + 1)
        elements = tokens * facts.transformer.width
    if pixels <= LARGEST_VIDEO and elements <= LARGEST_TABLE:
        return ""
    return f"{preset.height}x{preset.width} of {preset.num_frames} frames is larger than any release's preset"


LTX_VIDEO = Family(
    name="ltx-video",
    title="LTX-Video",
    facts=Facts,
    preset=Preset,
    components=COMPONENTS,
    profile=ProfileForm(
        ("height", "width", "frames"), ("512x768x97", "256..704x256..1216x9..161"), profile_ranges
    ),
    preset_problem=preset_problem,
)
