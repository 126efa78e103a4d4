"""diffusers' and transformers' own modules with a checkpoint's weights, called with our tensor contract.

Configs follow the fields that diffusers' converted releases carry; names are converted by diffusers' own
code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from ltxrt.engines.errors import InputError, MissingPackageError
from ltxrt.export import components
from ltxrt.export.graph.weights import read
from ltxrt.export.ltxv.open import Checkpoint

try:
    from diffusers import AutoencoderKLLTXVideo, LTXVideoTransformer3DModel
    from diffusers.loaders.single_file_utils import (
        convert_ltx_transformer_checkpoint_to_diffusers,
        convert_ltx_vae_checkpoint_to_diffusers,
    )
    from transformers import T5Config, T5EncoderModel
except ImportError as error:
    raise MissingPackageError("diffusers", "parity") from error

Function = Callable[..., torch.Tensor]


def transformer_config(config: Any) -> dict[str, Any]:
    return {
        "num_layers": config.layers,
        "num_attention_heads": config.heads,
        "attention_head_dim": config.head_size,
        "in_channels": config.in_channels,
        "out_channels": config.out_channels,
        "cross_attention_dim": config.cross_attention_width,
        "caption_channels": config.caption_channels,
    }


def vae_config(graph: str, config: Any) -> dict[str, Any]:
    """The fields of the releases' folders per graph, with `config`'s widths and layer counts."""
    encoder = [b for b in config.encoder_blocks if b.kind == "res"]
    decoder = [b for b in config.decoder_blocks if b.kind == "res"]
    strided = graph != "0.9.5"
    plain = graph == "0.9.0"
    widths = [b.in_channels for b in encoder]
    ups = [b for b in config.decoder_blocks if b.kind == "depth_to_space"]
    return {
        "latent_channels": config.latent_channels,
        "block_out_channels": widths[:-1] if strided else widths,
        "layers_per_block": [b.layers for b in encoder],
        "down_block_types": ["LTXVideoDownBlock3D" if strided else "LTXVideo095DownBlock3D"] * 4,
        "spatio_temporal_scaling": [True, True, True, not strided],
        "downsample_type": ["conv"] * 4
        if strided
        else ["spatial", "temporal", "spatiotemporal", "spatiotemporal"],
        "decoder_block_out_channels": [b.in_channels for b in decoder[:0:-1]]
        if plain
        else [b.in_channels for b in ups[::-1]],
        "decoder_layers_per_block": [b.layers for b in decoder[::-1]],
        "decoder_spatio_temporal_scaling": [True, True, True, False] if plain else [True] * 3,
        "decoder_inject_noise": [b.inject_noise for b in decoder[::-1]],
        "upsample_residual": [False] * 4 if plain else [True] * 3,
        "upsample_factor": [1] * 4 if plain else [2] * 3,
        "timestep_conditioning": not plain,
        "spatial_compression_ratio": 32,
        "temporal_compression_ratio": 8,
    }


def transformer(config: Any) -> Any:
    return LTXVideoTransformer3DModel(**transformer_config(config)).eval()


def vae(graph: str, config: Any) -> Any:
    return AutoencoderKLLTXVideo(**vae_config(graph, config)).eval()


def t5_config(config: Any) -> Any:
    return T5Config(
        d_model=config.width,
        num_layers=config.layers,
        num_heads=config.heads,
        d_kv=config.head_size,
        d_ff=config.ff_width,
        vocab_size=config.vocab_size,
        feed_forward_proj="gated-gelu",
    )


class Named2048:
    """Makes diffusers take a tiny VAE for the 0.9.5 one, which it tells by 2048 channels."""

    shape = (129, 2048)

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor


def to_diffusers_vae(tensors: dict[str, Any], graph: str) -> dict[str, Any]:
    """Official names to diffusers', by diffusers' own converter."""
    key = "vae.encoder.conv_out.conv.weight"
    if graph == "0.9.5":
        tensors[key] = Named2048(tensors[key])
    converted = convert_ltx_vae_checkpoint_to_diffusers(tensors)
    return {n: t.tensor if isinstance(t, Named2048) else t for n, t in converted.items()}


def function(checkpoint: Checkpoint, component: str) -> Function:
    """One of COMPONENTS as a function of the contract's inputs."""
    return COMPONENTS[component](checkpoint)


def _weights(checkpoint: Checkpoint, component: str, prefix: str) -> dict[str, Any]:
    part = components.part(checkpoint, component)
    return {prefix + name: read(stored).float() for name, stored in part.weights.items()}


def _text_encoder(checkpoint: Checkpoint) -> Function:
    config = t5_config(components.part(checkpoint, "text_encoder").config)
    with torch.device("meta"):
        model = T5EncoderModel(config)
    weights = _weights(checkpoint, "text_encoder", "")
    weights["encoder.embed_tokens.weight"] = weights["shared.weight"]
    model.load_state_dict(weights, strict=True, assign=True)
    model.eval()
    return lambda input_ids, attention_mask: model(input_ids, attention_mask=attention_mask)[0]


def _transformer(checkpoint: Checkpoint) -> Function:
    config = components.part(checkpoint, "transformer").config
    with torch.device("meta"):
        model = LTXVideoTransformer3DModel(**transformer_config(config))
    weights = _weights(checkpoint, "transformer", "model.diffusion_model.")
    model.load_state_dict(convert_ltx_transformer_checkpoint_to_diffusers(weights), strict=True, assign=True)
    model.eval()

    def call(latents: torch.Tensor, **rest: torch.Tensor) -> torch.Tensor:
        if not rest["perturbation_mask"].all():
            raise InputError("diffusers has no spatiotemporal guidance for this model; verify against torch")
        tables = [rest[f"rope_{name}"].repeat_interleave(2, dim=-1) for name in ("cos", "sin")]
        model.rope.forward = lambda *_args, **_kwargs: tuple(tables)
        timestep = rest["timesteps"].gather(1, rest["timestep_index"]) * 1000
        return model(
            hidden_states=latents,
            encoder_hidden_states=rest["context"],
            timestep=timestep,
            encoder_attention_mask=rest["context_mask"].float(),
        ).sample

    return call


def _autoencoder(checkpoint: Checkpoint, component: str) -> tuple[Any, torch.Tensor, torch.Tensor]:
    """diffusers' autoencoder, and the latents' mean and deviation per channel."""
    graph = checkpoint.version.vae_graph
    model = vae(graph, components.part(checkpoint, component).config)
    weights = to_diffusers_vae(_weights(checkpoint, component, "vae."), graph)
    model.load_state_dict(weights, strict=True)
    return model, model.latents_mean.view(1, -1, 1, 1, 1), model.latents_std.view(1, -1, 1, 1, 1)


def _vae_encoder(checkpoint: Checkpoint) -> Function:
    model, mean, std = _autoencoder(checkpoint, "vae_encoder")
    return lambda pixels: (model.encode(pixels).latent_dist.mean - mean) / std


def _vae_decoder(checkpoint: Checkpoint) -> Function:
    model, mean, std = _autoencoder(checkpoint, "vae_decoder")

    def call(
        latents: torch.Tensor, timestep: torch.Tensor | None = None, **maps: torch.Tensor
    ) -> torch.Tensor:
        ordered = sorted(maps, key=lambda name: int(name.removeprefix("noise_").removesuffix("x")))
        with _drawing([one for name in ordered for one in maps[name]]):
            return model.decode(latents * std + mean, timestep).sample

    return call


@contextmanager
def _drawing(maps: list[torch.Tensor]) -> Iterator[None]:
    """The reference draws its noise maps with torch.randn, in the order in which they are used."""
    drawn = torch.randn
    if maps:
        torch.randn = lambda *_args, **_kwargs: maps.pop(0)
    try:
        yield
    finally:
        torch.randn = drawn


COMPONENTS: Mapping[str, Callable[[Checkpoint], Function]] = {
    "text_encoder": _text_encoder,
    "transformer": _transformer,
    "vae_encoder": _vae_encoder,
    "vae_decoder": _vae_decoder,
}
