"""Every component, through its graph in ONNX Runtime, against diffusers' and transformers' modules in fp32.

No size here is one that was traced (`family.TRACE_SIZES`); many have an axis of length 1.
"""

import shutil

import numpy as np
import onnx
import pytest
import torch
from diffusers.models.transformers.transformer_ltx import LTXVideoAttnProcessor

from ltxrt.engines.backend import load_engine
from ltxrt.engines.bundle import read_bundle
from ltxrt.export.ltxv.family import TRACE_SIZES
from ltxrt.runtime.sampling import rope
from ltxrt.runtime.sampling.latents import LatentShape

TOLERANCE = 1e-4
GRAPHS = ["0.9.0", "0.9.1", "0.9.5"]
GRIDS = [(1, 1, 1), (1, 2, 3), (2, 1, 4), (4, 3, 2)]  # latent frames, height, width


@pytest.fixture(scope="module", params=GRAPHS)
def version(request):
    return request.param


@pytest.fixture(scope="module")
def bundle(version, tiny_bundle):
    return read_bundle(tiny_bundle(version))


@pytest.fixture(scope="module")
def models(version, diffusers_models):
    return diffusers_models(version)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def relative_l2(ours, theirs):
    theirs = theirs.detach().numpy() if isinstance(theirs, torch.Tensor) else theirs
    assert ours.shape == theirs.shape
    norm = np.linalg.norm(theirs.astype(np.float64))
    assert np.isfinite(norm) and norm > 0, "the reference gives nothing to compare with"
    return np.linalg.norm(ours.astype(np.float64) - theirs) / norm


def per_channel(values):
    return torch.as_tensor(values).view(1, -1, 1, 1, 1)


def test_no_size_here_was_traced():
    traced = tuple(TRACE_SIZES[s] for s in "fhw")
    assert traced not in GRIDS


class TestTransformer:
    """Inputs as the contract has them, and the same for diffusers."""

    def feed(self, bundle, rng, grid, batch, tokens, distinct=1, causal=False):
        facts, shape = bundle.facts.transformer, LatentShape(*grid)
        coordinates = rope.coordinates(shape, 25.0, causal, bundle.facts.vae)
        cos, sin = rope.tables(coordinates, facts.width, facts.rope_theta, facts.rope_max_positions)
        return {
            "latents": rng.standard_normal((batch, shape.tokens, facts.in_channels), dtype=np.float32),
            "timesteps": rng.random((batch, distinct), dtype=np.float32),
            "timestep_index": rng.integers(0, distinct, (batch, shape.tokens)),
            "context": rng.standard_normal((batch, tokens, facts.caption_channels), dtype=np.float32),
            "context_mask": np.ones((batch, tokens), np.bool_),
            "rope_cos": cos,
            "rope_sin": sin,
            "perturbation_mask": np.ones((facts.layers, 3, batch), np.bool_),
        }

    def theirs(self, model, feed, grid, coordinates=None):
        per_token = np.take_along_axis(feed["timesteps"], feed["timestep_index"], axis=1) * 1000
        scalar = feed["timesteps"].shape[1] == 1
        with torch.no_grad():
            return model(
                hidden_states=torch.from_numpy(feed["latents"]),
                encoder_hidden_states=torch.from_numpy(feed["context"]),
                timestep=torch.from_numpy(feed["timesteps"][:, 0] * 1000 if scalar else per_token),
                encoder_attention_mask=torch.from_numpy(feed["context_mask"].astype(np.float32)),
                num_frames=grid[0],
                height=grid[1],
                width=grid[2],
                rope_interpolation_scale=(8 / 25, 32, 32),
                video_coords=coordinates,
            ).sample

    @pytest.mark.parametrize("grid", GRIDS)
    @pytest.mark.parametrize("batch", [1, 2, 3])
    @pytest.mark.parametrize("distinct", [1, 3])
    def test_velocity(self, bundle, models, rng, grid, batch, distinct):
        feed = self.feed(bundle, rng, grid, batch, tokens=11, distinct=distinct)
        with load_engine(bundle, "transformer") as engine:
            ours = engine(**feed)["velocity"]
        assert relative_l2(ours, self.theirs(models.transformer, feed, grid)) <= TOLERANCE

    @pytest.mark.parametrize("tokens", [1, 5, 256])
    def test_masked_text(self, bundle, models, rng, tokens):
        feed = self.feed(bundle, rng, (2, 3, 3), 3, tokens, distinct=2)
        feed["context_mask"] = np.arange(tokens) < np.array([[tokens], [max(1, tokens // 3)], [1]])
        with load_engine(bundle, "transformer") as engine:
            ours = engine(**feed)["velocity"]
            feed["context_mask"][:] = True
            unmasked = engine(**feed)["velocity"]
        feed["context_mask"] = np.arange(tokens) < np.array([[tokens], [max(1, tokens // 3)], [1]])
        assert relative_l2(ours, self.theirs(models.transformer, feed, (2, 3, 3))) <= TOLERANCE
        assert tokens == 1 or (ours != unmasked).any()

    def test_causal_positions(self, bundle, models, rng):
        grid = (3, 2, 2)
        feed = self.feed(bundle, rng, grid, 2, 4, causal=True)
        coordinates = rope.coordinates(LatentShape(*grid), 25.0, True, bundle.facts.vae)
        # Given coordinates, diffusers scales the frame axis itself and expects them undivided elsewhere.
        theirs = self.theirs(
            models.transformer, feed, grid, torch.from_numpy(coordinates)[None].repeat(2, 1, 1)
        )
        with load_engine(bundle, "transformer") as engine:
            assert relative_l2(engine(**feed)["velocity"], theirs) <= TOLERANCE

    @pytest.mark.parametrize("mode", ["values", "skip", "block"])
    def test_perturbed_sample(self, bundle, models, rng, mode, monkeypatch):
        """The second sample's block 1 is perturbed; diffusers' modules are made to do the same."""
        feed = self.feed(bundle, rng, (2, 2, 3), 2, 6)
        row = ["values", "skip", "block"].index(mode)
        feed["perturbation_mask"][1, row, 1] = False
        block = models.transformer.transformer_blocks[1]
        with load_engine(bundle, "transformer") as engine:
            ours = engine(**feed)["velocity"]
            feed["perturbation_mask"][:] = True
            plain = engine(**feed)["velocity"]

        if mode == "block":
            forward = block.forward

            def skipped(hidden_states, *args, **kwargs):
                out = forward(hidden_states, *args, **kwargs)
                return torch.stack([out[0], hidden_states[1]])

            monkeypatch.setattr(block, "forward", skipped)
        else:
            monkeypatch.setattr(block.attn1, "processor", Perturbed(mode))
        theirs = self.theirs(models.transformer, feed, (2, 2, 3))
        assert relative_l2(ours, theirs) <= TOLERANCE
        assert (ours[1] != plain[1]).any()
        np.testing.assert_array_equal(ours[0], plain[0])


class Perturbed:
    """diffusers' attention, the last sample's output before the projection replaced."""

    def __init__(self, mode):
        self.mode, self.plain = mode, LTXVideoAttnProcessor()

    def __call__(self, attn, hidden_states, *args, **kwargs):
        out = self.plain(attn, hidden_states, *args, **kwargs)
        given = attn.to_v(hidden_states) if self.mode == "values" else hidden_states
        return torch.stack([out[0], attn.to_out[0](given)[1]])


class TestVaeDecoder:
    @pytest.mark.parametrize("grid", GRIDS)
    @pytest.mark.parametrize("batch", [1, 2, 3])
    def test_pixels(self, bundle, models, rng, grid, batch, monkeypatch):
        facts = bundle.facts.vae
        latents = rng.standard_normal((batch, facts.latent_channels, *grid), dtype=np.float32)
        feed, drawn = {"latents": latents}, []
        if facts.timestep_conditioning:
            feed["timestep"] = rng.random(batch, dtype=np.float32)
        for maps in facts.noise_maps:
            size = (maps.count, maps.scale * grid[1], maps.scale * grid[2])
            feed[f"noise_{maps.scale}x"] = rng.standard_normal(size, dtype=np.float32)
            drawn.extend(torch.from_numpy(feed[f"noise_{maps.scale}x"]))
        with load_engine(bundle, "vae_decoder") as engine:
            ours = engine(**feed)["pixels"]
        assert relative_l2(ours, self.theirs(models.vae, feed, drawn, monkeypatch)) <= TOLERANCE

    def theirs(self, vae, feed, drawn, monkeypatch):
        queue = list(drawn)
        raw = torch.from_numpy(feed["latents"]) * per_channel(vae.latents_std) + per_channel(vae.latents_mean)
        temb = torch.from_numpy(feed["timestep"]) if "timestep" in feed else None
        with torch.no_grad(), monkeypatch.context() as patch:
            # The reference draws its noise maps in the order in which they are used.
            patch.setattr(torch, "randn", lambda *a, **k: queue.pop(0))
            pixels = vae.decode(raw, temb).sample
        assert queue == []
        return pixels


class TestVaeEncoder:
    @pytest.mark.parametrize("grid", GRIDS)
    @pytest.mark.parametrize("batch", [1, 2, 3])
    def test_latents(self, bundle, models, rng, grid, batch):
        shape = LatentShape(*grid).video(bundle.facts.vae)
        size = (batch, 3, shape.num_frames, shape.height, shape.width)
        pixels = np.tanh(rng.standard_normal(size, dtype=np.float32))
        with torch.no_grad():
            mean = models.vae.encode(torch.from_numpy(pixels)).latent_dist.mean
        theirs = (mean - per_channel(models.vae.latents_mean)) / per_channel(models.vae.latents_std)
        with load_engine(bundle, "vae_encoder") as engine:
            assert relative_l2(engine(pixels=pixels)["latents"], theirs) <= TOLERANCE


class TestTextEncoder:
    @pytest.mark.parametrize("tokens", [1, 2, 40, 256, 300])
    @pytest.mark.parametrize("batch", [1, 2, 3])
    @pytest.mark.parametrize("masked", [False, True])
    def test_hidden_states(self, bundle, models, rng, tokens, batch, masked):
        ids = rng.integers(0, bundle.facts.text_encoder.vocab_size, (batch, tokens))
        lengths = rng.integers(1, tokens + 1, (batch, 1)) if masked else np.full((batch, 1), tokens)
        mask = (np.arange(tokens) < lengths).astype(np.int64)
        with torch.no_grad():
            theirs = models.text_encoder(torch.from_numpy(ids), attention_mask=torch.from_numpy(mask))[0]
        with load_engine(bundle, "text_encoder") as engine:
            ours = engine(input_ids=ids, attention_mask=mask)["hidden_states"]
        assert relative_l2(ours, theirs) <= TOLERANCE


class TestNothingToNormalise:
    """The first norm meets (nearly) zero vectors: without its epsilon of 1e-8, NaN or other pixels.

    Zero inputs alone do not give them, because of the bias before; so it is overwritten in both models.
    """

    @pytest.fixture(params=[0.0, 1e-3], ids=["zero", "small"])
    def quiet(self, version, tiny_bundle, diffusers_models, record_again, tmp_path, request):
        root = shutil.copytree(tiny_bundle(version), tmp_path / "bundle")
        bundle, vae = read_bundle(root), diffusers_models(version).vae
        for half in ("encoder", "decoder"):
            conv = getattr(vae, half).conv_in.conv
            bias = np.random.default_rng(3).standard_normal(conv.bias.shape, np.float32) * request.param
            conv.bias.data = torch.from_numpy(bias.astype(np.float32))
            overwrite(bundle, f"vae_{half}", f"{half}.conv_in.conv.bias", conv.bias.detach().numpy())
            mean = np.zeros(vae.latents_mean.shape, np.float32)
            overwrite(bundle, f"vae_{half}", "per_channel_statistics.mean-of-means", mean)
            record_again(root, f"vae_{half}", "fp32")
        vae.latents_mean.zero_()
        return read_bundle(root), vae

    def test_decoder(self, quiet, monkeypatch):
        bundle, vae = quiet
        sizes = {"B": 2, "f": 2, "h": 2, "w": 3}
        feed = bundle.contract("vae_decoder").sample(sizes, np.random.default_rng(1))
        feed["latents"][:] = 0
        drawn = [torch.from_numpy(m) for n in sorted(feed) if n.startswith("noise") for m in feed[n]]
        with load_engine(bundle, "vae_decoder") as engine:
            ours = engine(**feed)["pixels"]
        assert relative_l2(ours, TestVaeDecoder().theirs(vae, feed, drawn, monkeypatch)) <= TOLERANCE

    def test_encoder(self, quiet):
        bundle, vae = quiet
        pixels = np.zeros((2, 3, 9, 64, 32), np.float32)
        with torch.no_grad():
            theirs = vae.encode(torch.from_numpy(pixels)).latent_dist.mean / per_channel(vae.latents_std)
        with load_engine(bundle, "vae_encoder") as engine:
            assert relative_l2(engine(pixels=pixels)["latents"], theirs) <= TOLERANCE


def overwrite(bundle, component, name, values):
    """Write over a weight in the bundle's external data."""
    graph = bundle.graph(component)
    model = onnx.load(str(bundle.path(graph.file)), load_external_data=False)
    (tensor,) = (i for i in model.graph.initializer if i.name == name)
    place = {e.key: e.value for e in tensor.external_data}
    assert int(place["length"]) == values.nbytes
    with bundle.path(graph.data[0]).open("rb+") as file:
        file.seek(int(place["offset"]))
        file.write(values.tobytes())
