"""Every weight of a component: official name to shape, in torch's orientation (Linear is (out, in)).

Pure arithmetic on configs. A checkpoint is complete when its tensors are exactly these; synthetic checkpoints
are made from them.
"""

from __future__ import annotations

from collections.abc import Iterator

from ltxrt.export.ltxv.config import (
    TextEncoderConfig,
    TransformerConfig,
    UpsamplerConfig,
    VaeBlock,
    VaeConfig,
)

Shape = tuple[int, ...]
Item = tuple[str, Shape]
STATISTICS = ("per_channel_statistics.mean-of-means", "per_channel_statistics.std-of-means")
TIME_EMBEDDING = 256  # size of the sinusoid, in the transformer and in the VAE decoder


def transformer_parameters(config: TransformerConfig) -> dict[str, Shape]:
    """Official class `Transformer3DModel`, names without `model.diffusion_model.`."""
    return dict(_transformer(config))


def vae_parameters(config: VaeConfig) -> dict[str, Shape]:
    """Official class `CausalVideoAutoencoder`, names without `vae.`, with the two latent statistics."""
    return dict(_vae(config))


def text_encoder_parameters(config: TextEncoderConfig) -> dict[str, Shape]:
    """transformers class `T5EncoderModel`, the embedding once, as `shared.weight`."""
    return dict(_text_encoder(config))


def upsampler_parameters(config: UpsamplerConfig) -> dict[str, Shape]:
    """Official class `LatentUpsampler`, and the autoencoder's latent statistics."""
    return dict(_upsampler(config))


def _linear(name: str, inputs: int, outputs: int) -> Iterator[Item]:
    yield f"{name}.weight", (outputs, inputs)
    yield f"{name}.bias", (outputs,)


def _mlp(name: str, inputs: int, width: int) -> Iterator[Item]:
    yield from _linear(f"{name}.linear_1", inputs, width)
    yield from _linear(f"{name}.linear_2", width, width)


def _transformer(config: TransformerConfig) -> Iterator[Item]:
    width = config.width
    yield from _linear("patchify_proj", config.in_channels, width)
    yield from _mlp("adaln_single.emb.timestep_embedder", TIME_EMBEDDING, width)
    yield from _linear("adaln_single.linear", width, 6 * width)
    yield from _mlp("caption_projection", config.caption_channels, width)
    for i in range(config.layers):
        yield from _transformer_block(f"transformer_blocks.{i}", width, config.cross_attention_width)
    yield "scale_shift_table", (2, width)
    yield from _linear("proj_out", width, config.out_channels)


def _transformer_block(name: str, width: int, context: int) -> Iterator[Item]:
    yield from _attention(f"{name}.attn1", width, width)
    yield from _attention(f"{name}.attn2", width, context)
    yield from _linear(f"{name}.ff.net.0.proj", width, 4 * width)
    yield from _linear(f"{name}.ff.net.2", 4 * width, width)
    yield f"{name}.scale_shift_table", (6, width)


def _attention(name: str, width: int, context: int) -> Iterator[Item]:
    yield from _linear(f"{name}.to_q", width, width)
    yield from _linear(f"{name}.to_k", context, width)
    yield from _linear(f"{name}.to_v", context, width)
    yield from _linear(f"{name}.to_out.0", width, width)
    yield f"{name}.q_norm.weight", (width,)
    yield f"{name}.k_norm.weight", (width,)


def _vae(config: VaeConfig) -> Iterator[Item]:
    pixels, latents = config.image_channels * config.patch_size**2, config.latent_channels
    encoder, decoder = config.encoder_blocks, config.decoder_blocks
    yield from _conv("encoder.conv_in.conv", pixels, encoder[0].in_channels)
    for i, block in enumerate(encoder):
        yield from _vae_block(f"encoder.down_blocks.{i}", block, timestep=False)
    yield from _conv(
        "encoder.conv_out.conv", encoder[-1].out_channels, latents + 1
    )  # one shared log-variance
    yield from _conv("decoder.conv_in.conv", latents, decoder[0].in_channels)
    for i, block in enumerate(decoder):
        yield from _vae_block(f"decoder.up_blocks.{i}", block, config.timestep_conditioning)
    last = decoder[-1].out_channels
    yield from _conv("decoder.conv_out.conv", last, pixels)
    if config.timestep_conditioning:
        yield "decoder.timestep_scale_multiplier", ()
        yield from _mlp("decoder.last_time_embedder.timestep_embedder", TIME_EMBEDDING, 2 * last)
        yield "decoder.last_scale_shift_table", (2, last)
    for name in STATISTICS:
        yield name, (latents,)


def _conv(name: str, inputs: int, outputs: int, kernel: int = 3) -> Iterator[Item]:
    yield f"{name}.weight", (outputs, inputs, kernel, kernel, kernel)
    yield f"{name}.bias", (outputs,)


def _vae_block(name: str, block: VaeBlock, timestep: bool) -> Iterator[Item]:
    inputs, outputs = block.in_channels, block.out_channels
    fold = block.stride[0] * block.stride[1] * block.stride[2]
    if block.kind == "res":
        yield from _res_group(name, block, timestep)
    elif block.kind == "res_xy":
        yield from _res_xy(name, inputs, outputs)
    elif block.kind == "conv":
        yield from _conv(f"{name}.conv", inputs, outputs)
    elif block.kind == "space_to_depth":
        yield from _conv(f"{name}.conv.conv", inputs, outputs // fold)
    else:
        yield from _conv(f"{name}.conv.conv", inputs, outputs * fold)


def _res_group(name: str, block: VaeBlock, timestep: bool) -> Iterator[Item]:
    channels = block.in_channels
    if timestep:
        yield from _mlp(f"{name}.time_embedder.timestep_embedder", TIME_EMBEDDING, 4 * channels)
    for i in range(block.layers):
        inner = f"{name}.res_blocks.{i}"
        for half in (1, 2):
            yield from _conv(f"{inner}.conv{half}.conv", channels, channels)
            if block.inject_noise:
                yield f"{inner}.per_channel_scale{half}", (channels, 1, 1)
        if timestep:
            yield f"{inner}.scale_shift_table", (4, channels)


def _res_xy(name: str, inputs: int, outputs: int) -> Iterator[Item]:
    yield from _conv(f"{name}.conv1.conv", inputs, outputs)
    yield from _conv(f"{name}.conv2.conv", outputs, outputs)
    if inputs != outputs:
        yield f"{name}.norm3.norm.weight", (inputs,)
        yield f"{name}.norm3.norm.bias", (inputs,)
        yield from _conv(f"{name}.conv_shortcut", inputs, outputs, kernel=1)


def _upsampler(config: UpsamplerConfig) -> Iterator[Item]:
    latents, width = config.latent_channels, config.mid_channels
    yield from _conv("initial_conv", latents, width)
    yield from _group_norm("initial_norm", width)
    for group in ("res_blocks", "post_upsample_res_blocks"):
        for i in range(config.blocks):
            for half in (1, 2):
                yield from _conv(f"{group}.{i}.conv{half}", width, width)
                yield from _group_norm(f"{group}.{i}.norm{half}", width)
    kernel, outputs = ((3, 3, 3), 2 * width) if config.temporal else ((3, 3), 4 * width)
    yield "upsampler.0.weight", (outputs, width, *kernel)
    yield "upsampler.0.bias", (outputs,)
    yield from _conv("final_conv", width, latents)
    for name in STATISTICS:
        yield name, (latents,)


def _group_norm(name: str, channels: int) -> Iterator[Item]:
    yield f"{name}.weight", (channels,)
    yield f"{name}.bias", (channels,)


def _text_encoder(config: TextEncoderConfig) -> Iterator[Item]:
    width, inner = config.width, config.heads * config.head_size
    yield "shared.weight", (config.vocab_size, width)
    for i in range(config.layers):
        attention, ff = f"encoder.block.{i}.layer.0", f"encoder.block.{i}.layer.1"
        for projection in "qkv":
            yield f"{attention}.SelfAttention.{projection}.weight", (inner, width)
        yield f"{attention}.SelfAttention.o.weight", (width, inner)
        if i == 0:  # every layer uses the first one's table
            yield (
                f"{attention}.SelfAttention.relative_attention_bias.weight",
                (config.relative_buckets, config.heads),
            )
        yield f"{attention}.layer_norm.weight", (width,)
        yield f"{ff}.DenseReluDense.wi_0.weight", (config.ff_width, width)
        yield f"{ff}.DenseReluDense.wi_1.weight", (config.ff_width, width)
        yield f"{ff}.DenseReluDense.wo.weight", (width, config.ff_width)
        yield f"{ff}.layer_norm.weight", (width,)
    yield "encoder.final_layer_norm.weight", (width,)
