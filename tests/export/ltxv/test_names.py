"""The rename table against diffusers' own conversion, which maps the other way."""

import pytest
from diffusers.loaders.single_file_utils import (
    convert_ltx_transformer_checkpoint_to_diffusers,
    convert_ltx_vae_checkpoint_to_diffusers,
)

from ltxrt.engines.errors import CheckpointError
from ltxrt.export.ltxv import names
from ltxrt.export.ltxv.components import part_shapes
from ltxrt.parity.synthetic.models import tiny

GRAPHS = ["0.9.0", "0.9.1", "0.9.5"]


class Marker:
    """Stands for a tensor; 2048 input channels are what diffusers tells the 0.9.5 graph by."""

    def __init__(self, name, graph):
        self.name, self.shape = name, (129, 2048 if graph == "0.9.5" else 512)


def test_transformer_names_go_back_to_diffusers(reference):
    config = tiny("0.9.0").transformer
    original = list(reference.transformer(config).state_dict())
    official = {names.transformer_name(n): n for n in original}
    assert official.keys() == part_shapes("transformer", config).keys()
    back = convert_ltx_transformer_checkpoint_to_diffusers(
        {f"model.diffusion_model.{n}": v for n, v in official.items()}
    )
    assert back == {n: n for n in original}


@pytest.mark.parametrize("graph", GRAPHS)
def test_vae_names_go_back_to_diffusers(reference, graph):
    config = tiny(graph).vae
    original = list(reference.vae(graph, config).state_dict())
    official = {names.vae_name(n, graph): n for n in original}
    assert official.keys() == part_shapes("vae", config).keys()
    back = convert_ltx_vae_checkpoint_to_diffusers(
        {f"vae.{n}": Marker(v, graph) for n, v in official.items()}
    )
    assert {n: m.name for n, m in back.items()} == {n: n for n in original}


def test_an_index_is_matched_whole():
    with pytest.raises(CheckpointError, match=r"up_blocks\.10\.resnets.* belongs to no block"):
        names.vae_name("decoder.up_blocks.10.resnets.0.conv1.conv.weight", "0.9.0")


def test_what_is_no_vae_weight():
    kept = ["per_channel_statistics.mean-of-means", "per_channel_statistics.std-of-means"]
    kept += ["decoder.up_blocks.4.norm3.norm.weight", "encoder.conv_in.conv.bias"]
    dropped = ["channel", "mean-of-stds", "mean-of-stds_over_std-of-means"]
    assert all(map(names.is_vae_weight, kept))
    assert not any(names.is_vae_weight(f"per_channel_statistics.{n}") for n in dropped)
    assert not names.is_vae_weight("encoder.down_blocks.0.res_blocks.0.norm1.weight")
    assert not names.is_vae_weight("decoder.conv_norm_out.weight")


def test_text_encoder_names():
    assert names.text_encoder_name("encoder.embed_tokens.weight") == "shared.weight"
    assert names.text_encoder_name("shared.weight") == "shared.weight"
    assert names.text_encoder_name("decoder.block.0.layer.0.SelfAttention.q.weight") is None
    assert names.text_encoder_name("lm_head.weight") is None
