"""Tensor names: diffusers' to the official checkpoint's, and which stored tensors are not weights.

Every rule is anchored and matches whole module paths, so `up_blocks.1` never matches `up_blocks.10`.
Reference: diffusers `single_file_utils.py` (`convert_ltx_*`), which maps in the other direction.
"""

from __future__ import annotations

import re

from ltxrt.engines.errors import CheckpointError

_TRANSFORMER = (
    (re.compile(r"^proj_in\."), "patchify_proj."),
    (re.compile(r"^time_embed\."), "adaln_single."),
    (re.compile(r"^(transformer_blocks\.\d+\.attn[12])\.norm_([qk])\."), r"\1.\2_norm."),
)

# diffusers module path → index in the official encoder.down_blocks / decoder.up_blocks
_STRIDED_ENCODER = {
    "down_blocks.0": 0, "down_blocks.0.downsamplers.0": 1, "down_blocks.0.conv_out": 2,
    "down_blocks.1": 3, "down_blocks.1.downsamplers.0": 4, "down_blocks.1.conv_out": 5,
    "down_blocks.2": 6, "down_blocks.2.downsamplers.0": 7,
    "down_blocks.3": 8, "mid_block": 9,
}  # fmt: skip
_FOLDING_ENCODER = {
    "down_blocks.0": 0, "down_blocks.0.downsamplers.0": 1,
    "down_blocks.1": 2, "down_blocks.1.downsamplers.0": 3,
    "down_blocks.2": 4, "down_blocks.2.downsamplers.0": 5,
    "down_blocks.3": 6, "down_blocks.3.downsamplers.0": 7,
    "mid_block": 8,
}  # fmt: skip
_PLAIN_DECODER = {
    "mid_block": 0, "up_blocks.0": 1,
    "up_blocks.1.upsamplers.0": 2, "up_blocks.1": 3,
    "up_blocks.2.conv_in": 4, "up_blocks.2.upsamplers.0": 5, "up_blocks.2": 6,
    "up_blocks.3.conv_in": 7, "up_blocks.3.upsamplers.0": 8, "up_blocks.3": 9,
}  # fmt: skip
_RESIDUAL_DECODER = {
    "mid_block": 0,
    "up_blocks.0.upsamplers.0": 1, "up_blocks.0": 2,
    "up_blocks.1.upsamplers.0": 3, "up_blocks.1": 4,
    "up_blocks.2.upsamplers.0": 5, "up_blocks.2": 6,
}  # fmt: skip
_VAE_BLOCKS = {
    "0.9.0": {"encoder": _STRIDED_ENCODER, "decoder": _PLAIN_DECODER},
    "0.9.1": {"encoder": _STRIDED_ENCODER, "decoder": _RESIDUAL_DECODER},
    "0.9.5": {"encoder": _FOLDING_ENCODER, "decoder": _RESIDUAL_DECODER},
}
_OFFICIAL_LIST = {"encoder": "encoder.down_blocks", "decoder": "decoder.up_blocks"}
_BLOCK = re.compile(
    r"^(?P<side>encoder|decoder)\."
    r"(?P<path>mid_block|(?:down|up)_blocks\.\d+(?:\.(?:downsamplers\.0|upsamplers\.0|conv_in|conv_out))?)\."
    r"(?P<rest>.+)$"
)
_INSIDE_BLOCK = (
    (re.compile(r"^resnets\."), "res_blocks."),
    (re.compile(r"^conv_shortcut\.conv\."), "conv_shortcut."),
    (re.compile(r"^norm3\."), "norm3.norm."),
)
_VAE_OTHER = (
    (re.compile(r"^decoder\.time_embedder\."), "decoder.last_time_embedder."),
    (re.compile(r"^decoder\.scale_shift_table$"), "decoder.last_scale_shift_table"),
    (re.compile(r"^latents_mean$"), "per_channel_statistics.mean-of-means"),
    (re.compile(r"^latents_std$"), "per_channel_statistics.std-of-means"),
)
# Unused statistics, and norms that have no parameters in the module; the official loader drops both too.
_VAE_UNUSED = re.compile(
    r"per_channel_statistics\.(?!(?:mean|std)-of-means$)|(?:encoder|decoder)\..*(?:norm[12]|conv_norm_out)\."
)
_TEXT_UNUSED = re.compile(r"(?:decoder|lm_head)\.")


def transformer_name(name: str) -> str:
    """The official name of a diffusers transformer tensor."""
    return _first_match(_TRANSFORMER, name)


def vae_name(name: str, graph: str) -> str:
    """The official name of a diffusers VAE tensor; `graph` is one of `layout_graphs.GRAPHS`."""
    match = _BLOCK.match(name)
    if match is None:
        return _first_match(_VAE_OTHER, name)
    side, index = match["side"], _VAE_BLOCKS[graph][match["side"]].get(match["path"])
    if index is None:
        raise CheckpointError(f"vae: tensor {name!r} belongs to no block of the {graph} VAE")
    return f"{_OFFICIAL_LIST[side]}.{index}.{_first_match(_INSIDE_BLOCK, match['rest'])}"


def is_vae_weight(official_name: str) -> bool:
    """False for tensors in official VAE files that no graph uses."""
    return _VAE_UNUSED.match(official_name) is None


def text_encoder_name(name: str) -> str | None:
    """The name in T5's encoder; None for a decoder's tensors. The embedding is always `shared.weight`."""
    if _TEXT_UNUSED.match(name):
        return None
    return "shared.weight" if name == "encoder.embed_tokens.weight" else name


def _first_match(rules: tuple[tuple[re.Pattern[str], str], ...], name: str) -> str:
    for pattern, replacement in rules:
        if pattern.match(name):
            return pattern.sub(replacement, name)
    return name
