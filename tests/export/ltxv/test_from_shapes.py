"""Configs read back from parameter shapes alone."""

from dataclasses import replace

import pytest

from ltxrt.engines.errors import CheckpointError
from ltxrt.export.ltxv import from_shapes
from ltxrt.export.ltxv.components import part_shapes
from ltxrt.parity.synthetic.models import full, tiny


@pytest.mark.parametrize("version", ["0.9.0", "0.9.1", "0.9.5"])
@pytest.mark.parametrize("models", [full, tiny])
def test_vae(version, models):
    config = models(version).vae
    assert from_shapes.vae_config(part_shapes("vae", config)) == config


@pytest.mark.parametrize("version", ["0.9.0", "0.9.7-dev"])
def test_transformer(version):
    config = full(version).transformer
    assert from_shapes.transformer_config(part_shapes("transformer", config)) == replace(
        config, causal_rope=False
    )


def test_head_count_is_not_guessed():
    with pytest.raises(CheckpointError, match=r"width is 32; .* do not tell the number of heads"):
        from_shapes.transformer_config(part_shapes("transformer", tiny("0.9.0").transformer))


def test_unknown_vae_is_refused():
    shapes = part_shapes("vae", tiny("0.9.5").vae)
    cut = {n: s for n, s in shapes.items() if not n.startswith("decoder.up_blocks.6")}
    with pytest.raises(CheckpointError, match="not those of a released VAE"):
        from_shapes.vae_config(cut)
    with pytest.raises(CheckpointError, match=r"encoder\.conv_out\.conv\.weight is missing"):
        from_shapes.vae_config({n: s for n, s in shapes.items() if not n.startswith("encoder")})
    with pytest.raises(CheckpointError, match=r"down_blocks\.0 has no known tensors"):
        from_shapes.vae_config({n.replace("res_blocks", "resnets"): s for n, s in shapes.items()})
