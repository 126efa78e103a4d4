"""Configs from tensor names and shapes alone, for converted files without one. Official names, no prefix.

Shapes do not determine everything. A transformer's number of heads is not: both released widths have 32
heads, so only those widths are accepted. A VAE must have one of the three released graphs, which determine
the rest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from ltxrt.engines.errors import CheckpointError
from ltxrt.export.ltxv.config import TransformerConfig, VaeBlock, VaeConfig
from ltxrt.export.ltxv.vae_graphs import vae_graph

Shapes = Mapping[str, tuple[int, ...]]
_HEADS = {2048: 32, 4096: 32}
_STRIDES = {8: (2, 2, 2), 4: (1, 2, 2), 2: (2, 1, 1)}


def transformer_config(shapes: Shapes) -> TransformerConfig:
    """From names without prefix; shapes do not show `causal_rope`, so the caller sets it."""
    width, in_channels = _matrix(shapes, "patchify_proj.weight")
    if width not in _HEADS:
        known = " and ".join(map(str, _HEADS))
        raise CheckpointError(
            f"transformer: the file has no config and its width is {width}; without a config only the "
            f"released widths {known} are accepted, because shapes do not tell the number of heads"
        )
    heads = _HEADS[width]
    return TransformerConfig(
        layers=_count(shapes, r"transformer_blocks\.(\d{1,4})\."),
        heads=heads,
        head_size=width // heads,
        in_channels=in_channels,
        out_channels=_matrix(shapes, "proj_out.weight")[0],
        cross_attention_width=_matrix(shapes, "transformer_blocks.0.attn2.to_k.weight")[1],
        caption_channels=_matrix(shapes, "caption_projection.linear_1.weight")[1],
    )


def vae_config(shapes: Shapes) -> VaeConfig:
    """From names without prefix; refused unless the blocks are one of the three released graphs."""
    timestep = "decoder.last_scale_shift_table" in shapes
    encoder = _blocks(shapes, "encoder.down_blocks", _shape(shapes, "encoder.conv_out.conv.weight")[1])
    decoder = _blocks(shapes, "decoder.up_blocks", _shape(shapes, "decoder.conv_out.conv.weight")[1])
    patched = _shape(shapes, "encoder.conv_in.conv.weight")[1]
    config = VaeConfig(
        latent_channels=_shape(shapes, "decoder.conv_in.conv.weight")[1],
        patch_size=round((patched / 3) ** 0.5),
        encoder_blocks=tuple(encoder),
        # In the releases, upsamplers are residual exactly where the decoder has a timestep.
        decoder_blocks=tuple(_residual(b) if timestep else b for b in decoder),
        timestep_conditioning=timestep,
    )
    if vae_graph(config) is None or 3 * config.patch_size**2 != patched:
        raise CheckpointError(
            "vae: the file has no config and its tensors are not those of a released VAE "
            "(0.9.0, 0.9.1 or 0.9.5)"
        )
    return config


def _residual(block: VaeBlock) -> VaeBlock:
    if block.kind != "depth_to_space":
        return block
    return VaeBlock(block.kind, block.in_channels, block.out_channels, stride=block.stride, residual=True)


def _blocks(shapes: Shapes, prefix: str, last: int) -> list[VaeBlock]:
    """The blocks under `prefix`; the last one has `last` output channels."""
    count = _count(shapes, re.escape(prefix) + r"\.(\d{1,4})\.")
    entering = [_entering(shapes, f"{prefix}.{i}") for i in range(count)]
    leaving = [*entering[1:], last]
    return [_block(shapes, f"{prefix}.{i}", a, b) for i, (a, b) in enumerate(zip(entering, leaving))]


def _entering(shapes: Shapes, block: str) -> int:
    for name in ("res_blocks.0.conv1.conv", "conv1.conv", "conv.conv", "conv"):
        if f"{block}.{name}.weight" in shapes:
            return _shape(shapes, f"{block}.{name}.weight")[1]
    raise CheckpointError(f"vae: {block} has no known tensors, and the file has no config")


def _block(shapes: Shapes, block: str, entering: int, leaving: int) -> VaeBlock:
    if f"{block}.res_blocks.0.conv1.conv.weight" in shapes:
        layers = _count(shapes, re.escape(block) + r"\.res_blocks\.(\d{1,4})\.")
        noise = f"{block}.res_blocks.0.per_channel_scale1" in shapes
        return VaeBlock("res", entering, leaving, layers, inject_noise=noise)
    if f"{block}.conv1.conv.weight" in shapes:
        return VaeBlock("res_xy", entering, leaving)
    if f"{block}.conv.weight" in shapes:
        return VaeBlock("conv", entering, leaving, stride=(2, 2, 2))
    folded = _shape(shapes, f"{block}.conv.conv.weight")[0]
    kind = "space_to_depth" if folded < leaving else "depth_to_space"
    fold = max(folded, leaving) // max(1, min(folded, leaving))
    if fold not in _STRIDES:
        raise CheckpointError(f"vae: {block} folds its channels by {fold}; known are 2, 4 and 8")
    return VaeBlock(kind, entering, leaving, stride=_STRIDES[fold])


def _shape(shapes: Shapes, name: str) -> tuple[int, ...]:
    shape = shapes.get(name, ())
    if len(shape) < 2:
        raise CheckpointError(
            f"the file has no config, and none can be read from it: {name} is missing or misshapen"
        )
    return shape


def _matrix(shapes: Shapes, name: str) -> tuple[int, int]:
    shape = _shape(shapes, name)
    return shape[0], shape[1]


def _count(shapes: Shapes, pattern: str) -> int:
    """The number of consecutive indices from 0 in names that match `pattern`."""
    found = {int(m[1]) for name in shapes if (m := re.match(pattern, name))}
    count = next(i for i in range(len(found) + 1) if i not in found)
    if not count:
        raise CheckpointError(
            f"the file has no config, and none can be read from it: no names like {pattern}"
        )
    return count
