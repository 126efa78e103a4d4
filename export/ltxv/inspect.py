"""A description of an LTX-Video checkpoint in a few lines of text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from ltxrt.engines.errors import setting
from ltxrt.engines.families.ltxv.facts import SchedulerFacts
from ltxrt.export.checkpoint.safetensors import StoredTensor
from ltxrt.export.ltxv.config import TextEncoderConfig, TransformerConfig, VaeConfig
from ltxrt.export.ltxv.facts import noise_maps
from ltxrt.export.ltxv.open import Checkpoint
from ltxrt.export.ltxv.vae_graphs import vae_graph

FP8_WARNING = (
    "warning: FP8 weights without scales (a plain cast); export from the bf16 file where you can, "
    "quantising again from these loses quality"
)


def describe(checkpoint: Checkpoint) -> list[str]:
    """Lines on version, components, sizes, dtypes, config and licence."""
    return [_version_line(checkpoint), *_part_lines(checkpoint), *_closing_lines(checkpoint)]


def notes(checkpoint: Checkpoint, names: Sequence[str], whole: bool) -> list[str]:
    """The release, and what of it is not exported; `whole` where everything there is was asked for."""
    row = checkpoint.version
    doubt = "" if row.certain else f" (the file does not tell; {setting('model_version')} says it)"
    lines = [f"LTX-Video {row.name}{doubt}; {row.licence}"]
    dit = checkpoint.transformer
    if dit is not None and "transformer" in names and is_fp8(dit.weights):
        lines.append(FP8_WARNING)
    two_passes = len(row.presets["default"].passes) > 1
    expected = ["text_encoder", "transformer", "vae_encoder", "vae_decoder"]
    missing = [n for n in [*expected, *["latent_upsampler"] * two_passes] if n not in names]
    if missing:
        lines.append(f"not exported: {', '.join(missing)}")
    if whole and "text_encoder" in missing:
        lines.append(f"a video needs the text encoder: give {setting('text_encoder')}")
    if whole and "latent_upsampler" in missing:
        lines.append(
            "the default preset of this release has two passes and needs the latent upsampler between them: "
            f"give {setting('upsampler')}, or run with ltx-run --preset single-pass"
        )
    return lines


def _version_line(checkpoint: Checkpoint) -> str:
    row = checkpoint.version
    doubt = (
        ""
        if row.certain
        else " or a later one of the same architecture: the file name does not say; "
        "ltx-export onnx --model-version NAME does"
    )
    return f"{checkpoint.source}: LTX-Video {row.name}{doubt}"


def _part_lines(checkpoint: Checkpoint) -> list[str]:
    lines = []
    if checkpoint.transformer:
        lines += _part(
            "transformer", checkpoint.transformer.weights, _transformer(checkpoint.transformer.config)
        )
    if checkpoint.vae:
        lines += _part("vae", checkpoint.vae.weights, _vae(checkpoint.vae.config))
    if checkpoint.text_encoder:
        lines += _part("text encoder", checkpoint.text_encoder.weights, _text(checkpoint.text_encoder.config))
    return lines


def is_fp8(weights: Mapping[str, StoredTensor]) -> bool:
    """Whether some weights are FP8, as in the official FP8 files."""
    return any(tensor.dtype.startswith("F8") for tensor in weights.values())


def _part(name: str, weights: Mapping[str, StoredTensor], highlights: str) -> list[str]:
    counts: Counter[str] = Counter()
    for tensor in weights.values():
        counts[tensor.dtype] += tensor.size
    total, nbytes = sum(counts.values()), sum(t.nbytes for t in weights.values())
    dtypes = ", ".join(f"{d} {n / total:.1%}" for d, n in counts.most_common())
    lines = [f"{name}: {_amount(total)} parameters, {nbytes / 1e9:.3g} GB, {dtypes}", f"  {highlights}"]
    return lines + ([f"  {FP8_WARNING}"] if is_fp8(weights) else [])


def _amount(count: int) -> str:
    return f"{count / 1e9:.4g} B" if count >= 1e9 else f"{count / 1e6:.4g} M"


def _transformer(config: TransformerConfig) -> str:
    positions = "causal" if config.causal_rope else "plain"
    return (
        f"{config.layers} layers, {config.heads} heads × {config.head_size} = {config.width} wide, "
        f"text {config.caption_channels} wide, {positions} rotary positions"
    )


def _vae(config: VaeConfig) -> str:
    graph = vae_graph(config)
    maps = sum(m.count for m in noise_maps(config))
    extras = ["timestep" if config.timestep_conditioning else "", f"{maps} noise maps" if maps else ""]
    return (
        f"{graph or 'unknown'} graph, {config.spatial_compression}×{config.spatial_compression} pixels × "
        f"{config.temporal_compression} frames per latent of {config.latent_channels} channels, "
        f"decoder conditioned on {' and '.join(filter(None, extras)) or 'nothing'}"
    )


def _text(config: TextEncoderConfig) -> str:
    return f"T5 v1.1, {config.layers} layers, {config.width} wide, vocabulary of {config.vocab_size}"


def _closing_lines(checkpoint: Checkpoint) -> list[str]:
    missing = [n for n in ("transformer", "vae", "text_encoder") if getattr(checkpoint, n) is None]
    lines = [f"not in it: {', '.join(missing).replace('_', ' ')}"] if missing else []
    if checkpoint.scheduler:
        lines.append(f"schedule: {_schedule(checkpoint.scheduler)}")
    return [*lines, f"licence: {checkpoint.version.licence}"]


def _schedule(facts: SchedulerFacts) -> str:
    parts = [facts.sampler.replace("_", "-")]
    if facts.shift:
        parts.append(f"{facts.shift} shift" + (f" to {facts.terminal}" if facts.terminal is not None else ""))
    if facts.allowed_steps:
        parts.append("distilled to sigmas " + " ".join(f"{s:g}" for s in facts.allowed_steps))
    return ", ".join(parts)
