"""The modules' weights against the published totals and against the reference models themselves."""

import math

import pytest
from transformers import T5EncoderModel

from ltxrt.export.ltxv.components import part_shapes
from ltxrt.parity.synthetic.models import full, tiny


def total(shapes, prefix=""):
    return sum(math.prod(s) for n, s in shapes.items() if n.startswith(prefix))


@pytest.mark.parametrize(("version", "billions"), [("0.9.5", 1.9234), ("0.9.7-dev", 13.0426)])
def test_transformer_totals(version, billions):
    assert round(total(part_shapes("transformer", full(version).transformer)) / 1e9, 4) == billions


@pytest.mark.parametrize(
    ("version", "encoder", "decoder", "both"),
    [("0.9.0", 180.4, 238.8, 419.2), ("0.9.1", 180.4, 754.6, 935.0), ("0.9.5", 694.1, 552.8, 1246.9)],
)
def test_vae_totals(version, encoder, decoder, both):
    shapes = part_shapes("vae", full(version).vae)
    assert [round(total(shapes, p) / 1e6, 1) for p in ("encoder", "decoder", "")] == [encoder, decoder, both]


def test_text_encoder_total():
    assert round(total(part_shapes("text_encoder", full("0.9.0").text_encoder)) / 1e9, 3) == 4.762


def test_text_encoder_matches_the_reference(reference):
    config = tiny("0.9.0").text_encoder
    model = T5EncoderModel(reference.t5_config(config))
    theirs = {n: tuple(p.shape) for n, p in model.named_parameters()}
    assert part_shapes("text_encoder", config) == theirs
