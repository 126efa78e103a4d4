"""The colours of previews: fitted on an autoencoder, whose layers have their weights only while they run."""

import numpy as np
import pytest
import torch

from ltxrt.engines.progress import unreported
from ltxrt.export import families
from ltxrt.export.ltxv.models import preview
from ltxrt.export.ltxv.models.vae import VaeDecoder, VaeEncoder
from ltxrt.export.progress import COLOURS
from ltxrt.parity.check.reference import module


@pytest.fixture
def opened(tiny_checkpoint):
    """version → the tiny checkpoint."""
    return lambda version: families.open_checkpoint(
        tiny_checkpoint(version) / "model.safetensors", version, text_encoder=tiny_checkpoint(version) / "t5"
    )


@pytest.mark.parametrize("version", ["0.9.0", "0.9.1", "0.9.5"])
def test_a_streamed_module_computes_what_the_loaded_one_does(opened, version):
    checkpoint = opened(version)
    pixels = torch.from_numpy(preview.scenes(2, 9, 64))
    loaded = module(checkpoint, "vae_encoder")
    with torch.no_grad():
        wanted = loaded(pixels)
    config, weights = checkpoint.vae.config, checkpoint.vae.weights
    with preview.streamed(lambda: VaeEncoder(config), weights, lambda: None) as streamed:
        assert torch.equal(streamed(pixels), wanted)
        layers = [layer for layer in streamed.modules() if isinstance(layer, torch.nn.Conv3d)]
        assert layers and all(layer.weight.is_meta for layer in layers)


def test_weights_of_another_shape_are_refused(opened):
    vae = opened("0.9.5").vae
    other = {**vae.weights, "decoder.conv_in.conv.weight": vae.weights["decoder.conv_in.conv.bias"]}
    latents = torch.zeros(1, vae.config.latent_channels, 1, 2, 2)
    with (
        pytest.raises(Exception, match=r"decoder\.conv_in\.conv"),
        preview.streamed(lambda: VaeDecoder(vae.config), other, lambda: None) as decoder,
    ):
        decoder(latents, torch.zeros(1))


def test_a_linear_map_is_found_again():
    draw = np.random.RandomState(0)
    latents, truth = draw.normal(size=(2000, 128)), draw.normal(size=(3, 128)) / 40
    colours = latents @ truth.T + [0.4, 0.5, 0.6]
    held = np.arange(2000) % 4 == 3
    found = preview.regressed(latents.astype(np.float32), colours.astype(np.float32), held)
    assert np.abs(np.array(found.weights) - truth).max() < 1e-3
    assert np.abs(np.array(found.offset) - [0.4, 0.5, 0.6]).max() < 1e-3
    assert found.r2 > 0.999


def test_r2_is_of_cells_that_were_not_fitted_to():
    draw = np.random.RandomState(0)
    latents, held = draw.normal(size=(400, 128)).astype(np.float32), np.arange(400) % 4 == 3
    noise = draw.normal(size=(400, 3)).astype(np.float32)  # nothing to be found in it
    assert preview.regressed(latents, noise, held).r2 < 0.05


@pytest.mark.parametrize("colour", [0.5, np.nan, np.inf])
def test_an_autoencoder_that_decodes_to_nothing_has_no_preview(colour):
    latents = np.random.RandomState(0).normal(size=(40, 4)).astype(np.float32)
    flat = np.full((40, 3), colour, np.float32)
    assert preview.regressed(latents, flat, np.arange(40) % 4 == 3) is None


def test_a_cells_colour_is_the_mean_of_its_pixels(opened):
    config = opened("0.9.5").vae.config
    pixels = np.zeros((1, 3, 9, 64, 32), np.float32)
    pixels[:, 0, 0] = 1  # red in the first frame
    pixels[:, 1, 1:5] = -1  # less green in half of those that are one latent frame
    pixels[:, 2, 1:, 32:] = 3  # blue in the lower half, clipped
    found = preview.means(pixels, config)
    assert found.shape == (1, 2, 2, 1, 3)
    assert found[0, 0, :, 0].tolist() == [[1, 0.5, 0.5]] * 2
    assert found[0, 1, :, 0].tolist() == [[0.5, 0.25, 0.5], [0.5, 0.25, 1]]


def test_pictures_are_the_same_each_time_and_within_range():
    first = preview.scenes(2, 9, 32)
    assert np.array_equal(first, preview.scenes(2, 9, 32))
    assert first.shape == (2, 3, 9, 32, 32) and np.abs(first).max() <= 1 and first.std() > 0.2
    assert not np.array_equal(first[0], first[1]) and not np.array_equal(first[0, :, 0], first[0, :, 8])


def test_a_fit_says_how_far_it_is_and_is_the_same_each_time(opened):
    vae, progress = opened("0.9.5").vae, []
    found = preview.fit(vae, progress.append)
    assert found == preview.fit(vae, unreported)
    assert len(found.weights[0]) == vae.config.latent_channels and found.problem() == ""
    assert {(one.stage, one.unit) for one in progress} == {(COLOURS, "layer")}
    done = [one.done for one in progress]
    assert done == sorted(done) and done[0] == 0 and done[-1] == progress[0].total - 1


def test_a_fit_can_be_cancelled_between_two_layers(opened):
    def stop(progress):
        if progress.done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        preview.fit(opened("0.9.5").vae, stop)
