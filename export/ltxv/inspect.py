"""A description of a checkpoint in a few lines of text, for `ltx-export inspect`."""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from ltxrt.engines.families.ltxv.facts import SchedulerFacts
from ltxrt.export.checkpoint.safetensors import StoredTensor
from ltxrt.export.ltxv.config import TextEncoderConfig, TransformerConfig, VaeConfig
from ltxrt.export.ltxv.facts import noise_maps
from ltxrt.export.ltxv.open import Checkpoint, open_checkpoint
from ltxrt.export.ltxv.vae_graphs import vae_graph

NOT_COMPARED = "tensors were not compared with the config, which takes torch: pip install 'ltxrt[export]'"
FP8_WARNING = (
    "warning: FP8 weights without scales (a plain cast); export from the bf16 file where you can, "
    "quantising again from these loses quality"
)


def describe(path: str | Path) -> str:
    """Lines on version, components, sizes, dtypes, config and licence; raises as `open_checkpoint`.

    Without torch, tensors are not compared with the config, and a line says so.
    """
    torch = importlib.util.find_spec("torch") is not None
    checkpoint = open_checkpoint(path, check=torch)
    lines = [_version_line(checkpoint), *_part_lines(checkpoint), *_closing_lines(checkpoint)]
    return "\n".join(lines if torch else [*lines, NOT_COMPARED])


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
