"""The three VAE graphs of the releases, recognised by the sequence of their blocks."""

from __future__ import annotations

from ltxrt.export.ltxv.config import VaeBlock, VaeConfig

_STRIDED_ENCODER = ("res", "conv", "res_xy", "res", "conv", "res_xy", "res", "conv", "res", "res")
_FOLDING_ENCODER = ("res", *("space_to_depth", "res") * 4)
_PLAIN_DECODER = ("res", "res", "depth_to_space", "res", *("res_xy", "depth_to_space", "res") * 2)
_RESIDUAL_DECODER = ("res", *("depth_to_space", "res") * 3)

# graph, named after the first release that has it: encoder kinds, decoder kinds, timestep conditioning
_SIGNATURES = {
    "0.9.0": (_STRIDED_ENCODER, _PLAIN_DECODER, False),
    "0.9.1": (_STRIDED_ENCODER, _RESIDUAL_DECODER, True),
    "0.9.5": (_FOLDING_ENCODER, _RESIDUAL_DECODER, True),
}
GRAPHS = tuple(_SIGNATURES)


def vae_graph(config: VaeConfig) -> str | None:
    """The first release with this graph (`0.9.0`, `0.9.1`, `0.9.5`), of any widths; None for other graphs."""
    signature = (_kinds(config.encoder_blocks), _kinds(config.decoder_blocks), config.timestep_conditioning)
    return next((name for name, known in _SIGNATURES.items() if known == signature), None)


def _kinds(blocks: tuple[VaeBlock, ...]) -> tuple[str, ...]:
    return tuple(b.kind for b in blocks)
