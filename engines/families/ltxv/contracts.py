"""The tensor contracts of LTX-Video's components.

Symbols: B batch, N video tokens, K distinct timesteps, T text tokens, f/h/w latent frames/height/width.
"""

from __future__ import annotations

from ltxrt.engines.contract import Contract, Tensor
from ltxrt.engines.families.ltxv.facts import TextEncoderFacts, TransformerFacts, VaeFacts

MIN_TILE = 4  # the smallest tile side in latents
# The autoencoder's inputs are one video, whole or in tiles, or a single image.
TILES = {"f": 1, "h": MIN_TILE, "w": MIN_TILE}
ONE_VIDEO = {"B": 1}
# Padding of the text is masked everywhere: T5's padding token, False and 0 in the masks.
PADDING = {"T": 64}


def text_encoder(facts: TextEncoderFacts) -> Contract:
    """Token ids to the hidden states that condition the transformer."""
    return Contract(
        "text_encoder",
        (Tensor("input_ids", "i64", ("B", "T")), Tensor("attention_mask", "i64", ("B", "T"))),
        (Tensor("hidden_states", "f32", ("B", "T", facts.width)),),
        padding=PADDING,
    )


def transformer(facts: TransformerFacts) -> Contract:
    """Latent tokens at given timesteps to their velocity (noise − x0).

    `timesteps` are the distinct sigmas of a call (0..1) and `timestep_index` says which one each token has.
    `perturbation_mask[l, m, b]` False turns block l of sample b into the perturbed one of mode m:
    0 attention values, 1 attention skip, 2 whole block skipped.
    """
    half = facts.width // 2
    return Contract(
        "transformer",
        (
            Tensor("latents", "f32", ("B", "N", facts.in_channels)),
            Tensor("timesteps", "f32", ("B", "K")),
            Tensor("timestep_index", "i64", ("B", "N")),
            Tensor("context", "f32", ("B", "T", facts.caption_channels)),
            Tensor("context_mask", "bool", ("B", "T")),
            Tensor("rope_cos", "f32", (1, "N", half)),
            Tensor("rope_sin", "f32", (1, "N", half)),
            Tensor("perturbation_mask", "bool", (facts.layers, 3, "B")),
        ),
        (Tensor("velocity", "f32", ("B", "N", facts.out_channels)),),
        padding=PADDING,
        tokens=("N",),
    )


def _pixels(facts: VaeFacts) -> Tensor:
    time, space = facts.temporal_compression, facts.spatial_compression
    return Tensor("pixels", "f32", ("B", 3, f"{time}*f{1 - time:+d}", f"{space}*h", f"{space}*w"))


def _latents(facts: VaeFacts) -> Tensor:
    return Tensor("latents", "f32", ("B", facts.latent_channels, "f", "h", "w"))


def vae_encoder(facts: VaeFacts) -> Contract:
    """Pixels in −1..1 to the normalised mean of the posterior."""
    return Contract("vae_encoder", (_pixels(facts),), (_latents(facts),), tiles=TILES, fixed=ONE_VIDEO)


def vae_decoder(facts: VaeFacts) -> Contract:
    """Normalised latents to pixels in −1..1, with the timestep and noise maps of some versions."""
    extra = [Tensor("timestep", "f32", ("B",))] if facts.timestep_conditioning else []
    maps = [
        Tensor(f"noise_{m.scale}x", "f32", (m.count, f"{m.scale}*h", f"{m.scale}*w"))
        for m in facts.noise_maps
    ]
    inputs = (_latents(facts), *extra, *maps)
    return Contract("vae_decoder", inputs, (_pixels(facts),), tiles=TILES, fixed=ONE_VIDEO)


def latent_upsampler(facts: VaeFacts) -> Contract:
    """Normalised latents to those of twice the height and width."""
    larger = Tensor("upsampled", "f32", ("B", facts.latent_channels, "f", "2*h", "2*w"))
    return Contract("latent_upsampler", (_latents(facts),), (larger,))


def temporal_upsampler(facts: VaeFacts) -> Contract:
    """Normalised latents to those of a video with twice the frames, minus one."""
    longer = Tensor("upsampled", "f32", ("B", facts.latent_channels, "2*f-1", "h", "w"))
    return Contract("temporal_upsampler", (_latents(facts),), (longer,))
