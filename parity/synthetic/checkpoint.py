"""Writes checkpoints with random weights in the real file layouts, streamed, for tests and dry runs.

Real weights cannot be included. Random ones are drawn so that activations stay of order one, and a random
model makes finite video that is not constant.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ltxrt.engines.errors import InputError
from ltxrt.engines.families.ltxv.facts import SchedulerFacts
from ltxrt.engines.storage.files import atomic_write
from ltxrt.export.checkpoint.safetensors import DTYPE_BYTES
from ltxrt.export.ltxv import official
from ltxrt.export.ltxv.config import TextEncoderConfig, TransformerConfig, UpsamplerConfig, VaeConfig
from ltxrt.export.ltxv.facts import STATISTICS
from ltxrt.export.ltxv.open import TRANSFORMER_PREFIX, VAE_PREFIX
from ltxrt.parity.synthetic.tokenizer import write_tokenizer
from ltxrt.runtime.noise.cpu import bfloat16

_CHUNK = 1 << 22  # elements drawn at a time: 16 MB of float32
_SPARSE_FROM = 1 << 16  # smaller tensors (norms, tables, statistics) are written in sparse files too
# The order of drawing random values among siblings, which is not the modules' order, so that a seed always
# gives the same weights. Names that are not listed here are equal in all positions, or sorted.
_DRAWN = """
    patchify_proj adaln_single caption_projection transformer_blocks attn1 attn2 ff to_q to_k to_v to_out
    q_norm k_norm emb linear linear_1 linear_2 shared encoder decoder conv_in down_blocks up_blocks conv_out
    timestep_scale_multiplier last_time_embedder last_scale_shift_table time_embedder initial_conv
    initial_norm res_blocks post_upsample_res_blocks upsampler final_conv per_channel_statistics conv1
    per_channel_scale1 norm1 conv2 per_channel_scale2 norm2 norm3 conv_shortcut scale_shift_table proj_out
    block final_layer_norm SelfAttention DenseReluDense q k v o relative_attention_bias layer_norm wi_0 wi_1
    wo weight bias
"""


def write_official(
    path: Path,
    transformer: TransformerConfig,
    vae: VaeConfig,
    scheduler: SchedulerFacts,
    dtype: str = "F32",
    seed: int = 0,
    fill: str = "random",
) -> None:
    """The official single file: both components, their config in the header. `dtype` F32, F16 or BF16.

    `fill` "sparse" leaves large tensors as holes of zeros, so that full-size files take no disk space.
    """
    shapes = {TRANSFORMER_PREFIX + n: s for n, s in weights_of("transformer", transformer).items()}
    shapes |= {VAE_PREFIX + n: s for n, s in weights_of("vae", vae).items()}
    config: dict[str, Any] = {
        "transformer": official.official_transformer(transformer),
        "vae": official.official_vae(vae),
        "scheduler": official.official_scheduler(scheduler),
    }
    if scheduler.allowed_steps is not None:
        config["allowed_inference_steps"] = list(scheduler.allowed_steps)
    write_random(path, shapes, {"config": json.dumps(config)}, dtype, seed, fill)


def write_text_encoder(
    folder: Path, config: TextEncoderConfig, dtype: str = "F32", seed: int = 0, fill: str = "random"
) -> None:
    """A T5 folder: config.json, model.safetensors and tokenizer/tokenizer.json."""
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(folder / "config.json") as temporary:
        temporary.write_text(json.dumps(t5_config(config), indent=2), encoding="utf-8")
    write_random(
        folder / "model.safetensors", weights_of("text_encoder", config), {"format": "pt"}, dtype, seed, fill
    )
    write_tokenizer(folder / "tokenizer", config.vocab_size)


def write_upsampler(path: Path, config: UpsamplerConfig, seed: int = 0) -> None:
    """An official latent upsampler's file: unprefixed tensors, a flat config in the header."""
    shapes = {n: s for n, s in weights_of("latent_upsampler", config).items() if n not in STATISTICS}
    header = {
        "in_channels": config.latent_channels,
        "mid_channels": config.mid_channels,
        "num_blocks_per_stage": config.blocks,
        "dims": 3,
        "spatial_upsample": not config.temporal,
        "temporal_upsample": config.temporal,
    }
    write_random(path, shapes, {"config": json.dumps(header)}, "F32", seed, "random")


def weights_of(part: str, config: Any) -> dict[str, tuple[int, ...]]:
    """Name → shape of every weight of a checkpoint's part, in the order of drawing."""
    from ltxrt.export.ltxv.components import part_shapes

    ranks = {word: rank for rank, word in enumerate(_DRAWN.split())}

    def position(item: tuple[str, object]) -> list[tuple[int, str]]:
        words = item[0].split(".")
        return [(int(w), "") if w.isdecimal() else (ranks.get(w, len(ranks)), w) for w in words]

    return dict(sorted(part_shapes(part, config).items(), key=position))


def t5_config(config: TextEncoderConfig) -> dict[str, object]:
    """`config.json` of a T5 folder, as transformers writes it."""
    return {
        "architectures": ["T5EncoderModel"],
        "model_type": "t5",
        "d_model": config.width,
        "num_layers": config.layers,
        "num_heads": config.heads,
        "d_kv": config.head_size,
        "d_ff": config.ff_width,
        "vocab_size": config.vocab_size,
        "relative_attention_num_buckets": config.relative_buckets,
        "relative_attention_max_distance": config.relative_max_distance,
        "layer_norm_epsilon": config.norm_eps,
        "feed_forward_proj": "gated-gelu",
        "is_encoder_decoder": False,
        "use_cache": False,
        "pad_token_id": 0,
        "eos_token_id": 1,
    }


def write_random(
    path: Path,
    shapes: Mapping[str, tuple[int, ...]],
    metadata: Mapping[str, str],
    dtype: str,
    seed: int,
    fill: str,
) -> None:
    """A safetensors file of `shapes`, written tensor by tensor to a temporary name, then renamed."""
    if dtype not in ("F32", "F16", "BF16") or fill not in ("random", "sparse"):
        raise InputError(f"dtype {dtype!r}, fill {fill!r}: must be F32, F16 or BF16, and random or sparse")
    header, total = _header(shapes, metadata, dtype)
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        file.write(header)
        for name, shape in shapes.items():
            _write_tensor(file, name, shape, dtype, rng if fill == "random" or _small(shape) else None)
        file.truncate(len(header) + total)


def _small(shape: tuple[int, ...]) -> bool:
    return math.prod(shape) < _SPARSE_FROM


def _header(
    shapes: Mapping[str, tuple[int, ...]], metadata: Mapping[str, str], dtype: str
) -> tuple[bytes, int]:
    entries: dict[str, object] = {"__metadata__": dict(metadata)}
    position = 0
    for name, shape in shapes.items():
        end = position + math.prod(shape) * DTYPE_BYTES[dtype]
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)  # aligns the tensors
    return len(text).to_bytes(8, "little") + text, position


def _write_tensor(
    file: BinaryIO, name: str, shape: tuple[int, ...], dtype: str, rng: np.random.Generator | None
) -> None:
    size = math.prod(shape)
    if rng is None:
        file.seek(size * DTYPE_BYTES[dtype], os.SEEK_CUR)
        return
    mean, deviation = distribution(name, shape)
    for chunk in _chunks(size):
        values = rng.standard_normal(chunk, dtype=np.float32) * np.float32(deviation) + np.float32(mean)
        file.write(_encoded(np.abs(values) if name.endswith("std-of-means") else values, dtype))


def _chunks(size: int) -> Iterator[int]:
    for start in range(0, size, _CHUNK):
        yield min(_CHUNK, size - start)


def _encoded(values: np.ndarray, dtype: str) -> bytes:
    if dtype == "F32":
        return values.astype("<f4").tobytes()
    if dtype == "F16":
        return values.astype("<f2").tobytes()
    return (bfloat16(values).view(np.uint32) >> np.uint32(16)).astype("<u2").tobytes()


def distribution(name: str, shape: tuple[int, ...]) -> tuple[float, float]:
    """Mean and standard deviation of a weight's random values."""
    if name.endswith("timestep_scale_multiplier"):
        return 1000.0, 0.0
    if name.endswith(("norm.weight", "norm1.weight", "norm2.weight")):
        return 1.0, 0.1
    if name.endswith("std-of-means"):
        return 1.0, 0.1
    if name.endswith(("mean-of-means", "shared.weight")):
        return 0.0, 0.5
    if "scale_shift_table" in name:
        return 0.0, shape[-1] ** -0.5
    if name.endswith(".bias") or "per_channel_scale" in name:
        return 0.0, 0.02
    # T5 does not scale its attention logits by the head size (64): its query weights carry that factor.
    return 0.0, math.prod(shape[1:]) ** -0.5 * (0.125 if name.endswith("SelfAttention.q.weight") else 1.0)
