"""A description of an LTX-Video checkpoint in a few lines of text."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from ltxrt.engines.description import Description, file_size
from ltxrt.engines.errors import CheckpointError, setting
from ltxrt.engines.families.ltxv.facts import SchedulerFacts
from ltxrt.export.checkpoint.fields import load_json
from ltxrt.export.checkpoint.safetensors import SafetensorsFile, StoredTensor
from ltxrt.export.hub.reference import cached_as
from ltxrt.export.ltxv.config import TextEncoderConfig, TransformerConfig, VaeConfig
from ltxrt.export.ltxv.facts import noise_maps
from ltxrt.export.ltxv.open import Checkpoint, is_text_encoder, open_text_encoder
from ltxrt.export.ltxv.upsampler import open_upsampler
from ltxrt.export.ltxv.vae_graphs import vae_graph

_LORA_DOWN = re.compile(r"\.lora_(?:A|down)(?=\.|$)")
_LORA = re.compile(r"\.lora_(?:A|B|down|up)(?=\.|$)")
_BLOCK = re.compile(r"blocks\.(\d+)\.")
_LORA_LAYERS = 12  # names that are shown
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
            f"give {setting('upsampler')}; until the bundle has it, its default is the preset single-pass"
        )
    return lines


def describe_part(path: Path) -> Description | None:
    """An upsampler, a text encoder or a LoRA; None for anything else."""
    if path.is_dir():
        return _part_folder(path)
    if path.suffix.lower() != ".safetensors":
        return None
    file = SafetensorsFile(path)
    if "initial_conv.weight" in file.tensors:
        return _upsampler(path)
    if any(_LORA.search(name) for name in file.tensors):
        return _lora(path, file)
    if any(map(is_text_encoder, file.tensors)):
        raise CheckpointError(f"{path}: is part of a text encoder; give its folder, {path.parent}")
    return None


def _part_folder(folder: Path) -> Description | None:
    config = next(
        (d / "config.json" for d in (folder, folder / "latent_upsampler") if (d / "config.json").is_file()),
        None,
    )
    kind = load_json(config) if config else {}
    if kind.get("_class_name") == "LTXLatentUpsamplerModel":
        return _upsampler(folder)
    if any((folder / name).is_dir() for name in ("transformer", "vae")):
        return None
    if not (folder / "text_encoder").is_dir() and kind.get("model_type") != "t5":
        return None
    part, tokenizer = open_text_encoder(folder)
    lines = [
        f"{_name(folder)}: text encoder; ltx-export onnx takes it with --text-encoder",
        *_part("text encoder", part.weights, _text(part.config)),
    ]
    lines.append(f"  tokenizer in {tokenizer}")
    return Description("text encoder", tuple(lines), _sizes(part.weights))


def _upsampler(path: Path) -> Description:
    config, tensors = open_upsampler(path)
    what = "temporal, doubles the frames" if config.temporal else "spatial, doubles height and width"
    lines = [
        f"{_name(path)}: latent upsampler; ltx-export onnx takes it with --upsampler",
        *_part(
            what,
            tensors,
            f"{config.latent_channels} latent channels, {config.mid_channels} wide, {config.blocks} blocks",
        ),
    ]
    return Description("latent upsampler", tuple(lines), {"temporal": config.temporal, **_sizes(tensors)})


def _lora(path: Path, file: SafetensorsFile) -> Description:
    """Low-rank additions to weights: their ranks, and of which layers."""
    down = {n: t for n, t in file.tensors.items() if _LORA_DOWN.search(n)}
    ranks = sorted({tensor.shape[0] for tensor in down.values() if tensor.shape})
    blocks = {found[1] for name in down if (found := _BLOCK.search(name))}
    layers = sorted({_LORA_DOWN.split(name)[0].rsplit(".", 2)[-1] for name in down})
    of = f"{len(down)} layers" + (f" in {len(blocks)} blocks" if blocks else "")
    lines = [
        f"{_name(path)}: LoRA of rank {' to '.join(map(str, dict.fromkeys((ranks[0], ranks[-1]))))} for {of}"
        if ranks
        else f"{_name(path)}: LoRA without a readable rank",
        *_part("additions", file.tensors, f"to {', '.join(layers[:_LORA_LAYERS])}"),
        "  no command applies a LoRA: merge it into the checkpoint's weights first, then export that",
    ]
    return Description(
        "LoRA",
        tuple(lines),
        {"ranks": ranks, "layers": len(down), "blocks": len(blocks), **_sizes(file.tensors)},
    )


def _name(path: Path) -> str:
    """A path, or what it is on the hub."""
    return str(cached_as(path) or path)


def _sizes(weights: Mapping[str, StoredTensor]) -> dict[str, int]:
    return {
        "parameters": sum(t.size for t in weights.values()),
        "bytes": sum(t.nbytes for t in weights.values()),
    }


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
    lines = [f"{name}: {_amount(total)} parameters, {file_size(nbytes)}, {dtypes}", f"  {highlights}"]
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
