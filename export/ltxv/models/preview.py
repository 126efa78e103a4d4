"""Fits the map from latents to colours that previews use, on the checkpoint's own autoencoder.

Synthetic pictures and clips are encoded and decoded in fp32; the colours of the decoded cells are regressed
on the latents. Weights are loaded a layer at a time, so that memory does not grow with the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ltxrt.engines.errors import LtxrtError
from ltxrt.engines.families.preview import Preview
from ltxrt.engines.progress import Progress, Report
from ltxrt.export.checkpoint.part import Part
from ltxrt.export.checkpoint.safetensors import StoredTensor
from ltxrt.export.graph.layers import Linear
from ltxrt.export.graph.weights import read
from ltxrt.export.ltxv.config import VaeConfig
from ltxrt.export.ltxv.facts import noise_maps
from ltxrt.export.ltxv.models.vae import VaeDecoder, VaeEncoder
from ltxrt.export.progress import COLOURS

Array = NDArray[np.float32]

_STREAMED = (nn.Conv3d, Linear)  # what holds nearly all weights; the others are loaded as a whole
_TIMESTEP = 0.05  # of the decoder, in every release's presets that have one
_RIDGE = 1e-2  # of the cells' number: keeps directions that hardly vary from getting large factors
_DIGITS = 6  # significant digits that are kept: processors differ behind them
_CLIP = 9  # pixel frames of a clip
_SIDE = 4  # cells of a picture's height and width
_HELD_OUT = 4  # every fourth is not fitted to but judges the fit


def fit(vae: Part[VaeConfig], report: Report) -> Preview | None:
    """The map for this autoencoder; None where it decodes everything to one colour or to no number."""
    told = _Layers(vae.config, report)
    features: list[Array] = []
    colours: list[Array] = []
    held: list[NDArray[np.bool_]] = []
    channels, side = vae.config.latent_channels, _SIDE * vae.config.spatial_compression
    # At 128 channels 16 pictures and 3 clips of two latent frames: 352 cells. More would take minutes there.
    for count, frames in ((max(4, channels // 8), 1), (max(2, channels // 40), _CLIP)):
        latents, decoded = _round_trip(vae, scenes(count, frames, side), told)
        cells = latents.transpose(0, 2, 3, 4, 1)
        features.append(cells.reshape(-1, cells.shape[-1]))
        colours.append(means(decoded, vae.config).reshape(-1, 3))
        judges = np.arange(count) % _HELD_OUT == _HELD_OUT - 1
        held.append(np.repeat(judges, len(features[-1]) // count))
    return regressed(np.concatenate(features), np.concatenate(colours), np.concatenate(held))


class _Layers:
    """Counts the layers of both round trips for a report."""

    def __init__(self, config: VaeConfig, report: Report) -> None:
        with torch.device("meta"):
            modules = [layer for half in (VaeEncoder(config), VaeDecoder(config)) for layer in half.modules()]
        self._report, self._done = report, 0
        self._total = 2 * sum(isinstance(layer, _STREAMED) for layer in modules)

    def __call__(self) -> None:
        self._report(Progress(COLOURS, min(self._done, self._total), self._total, "layer"))
        self._done += 1


def regressed(features: Array, colours: Array, held: NDArray[np.bool_]) -> Preview | None:
    """Ridge regression of colours (n,3) on features (n,C); `held` (n,) are the cells that judge it."""
    if not (np.isfinite(features).all() and np.isfinite(colours).all()):
        return None
    x, y = features[~held].astype(np.float64), colours[~held].astype(np.float64)
    mean, centre = x.mean(0), y.mean(0)
    gram = (x - mean).T @ (x - mean)
    gram += np.eye(len(gram)) * _RIDGE * len(x)
    weights = np.linalg.solve(gram, (x - mean).T @ (y - centre)).T
    offset = centre - weights @ mean
    weights, offset = _rounded(weights), _rounded(offset)
    judged = colours[held].astype(np.float64)
    spread = float(((judged - judged.mean(0)) ** 2).sum())
    if spread < 1e-9 * judged.size:
        return None
    error = float(((features[held] @ weights.T + offset - judged) ** 2).sum())
    r2 = round(max(1 - error / spread, -1e6), 4)
    return Preview(tuple(map(tuple, weights.tolist())), tuple(offset.tolist()), r2)


def _rounded(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.vectorize(lambda value: float(f"{value:.{_DIGITS - 1}e}"))(values)


def scenes(count: int, frames: int, side: int) -> Array:
    """Pixels (count,3,frames,side,side) in −1..1: colours that vary slowly, moving shapes, texture."""
    draw = np.random.RandomState(20240 + frames)
    y, x = np.mgrid[0:side, 0:side].astype(np.float32) / side
    made = np.empty((count, 3, frames, side, side), np.float32)
    for scene in made:
        base, waves = draw.uniform(-0.8, 0.8, 3), draw.uniform(-3, 3, (3, 3))
        shapes = draw.uniform(-0.2, 1.2, (6, 2)), draw.uniform(-0.3, 0.3, (6, 2)), draw.uniform(0.05, 0.3, 6)
        paints, grain = draw.uniform(-1, 1, (6, 3)), draw.normal(0, draw.uniform(0, 0.2), (side, side))
        for frame in range(frames):
            time = frame / max(frames, 2)
            for channel in range(3):
                u, v, phase = waves[channel]
                slope = 0.5 * np.sin(2 * np.pi * (u * x + v * y) / 2 + phase + time)
                scene[channel, frame] = base[channel] + slope + grain
            for place, speed, radius, paint in zip(*shapes, paints):
                cx, cy = place + speed * time
                inside = (x - cx) ** 2 + (y - cy) ** 2 < radius**2
                scene[:, frame, inside] = paint[:, None]
    return made.clip(-1, 1)


def means(pixels: Array, config: VaeConfig) -> Array:
    """The colours (B,f,h,w,3) in 0..1 of decoded pixels (B,3,F,H,W): of each latent cell the mean.

    The first latent frame is one pixel frame, each other one as many as the temporal compression.
    """
    space, time = config.spatial_compression, config.temporal_compression
    batch, channels, count, height, width = pixels.shape
    blocks = pixels.clip(-1, 1).reshape(batch, channels, count, height // space, space, width // space, space)
    cells = blocks.mean((4, 6))
    later = cells[:, :, 1:].reshape(batch, channels, (count - 1) // time, time, *cells.shape[3:]).mean(3)
    joined = np.concatenate([cells[:, :, :1], later], axis=2)
    colours: Array = (joined.transpose(0, 2, 3, 4, 1) + np.float32(1)) / np.float32(2)
    return colours


def _round_trip(vae: Part[VaeConfig], pixels: Array, told: Callable[[], None]) -> tuple[Array, Array]:
    """Latents (B,C,f,h,w) of pixels, and what the decoder makes of them."""
    config = vae.config
    with streamed(lambda: VaeEncoder(config), vae.weights, told) as encoder:
        latents: Tensor = encoder(torch.from_numpy(pixels))
    batch, height, width = latents.shape[0], latents.shape[3], latents.shape[4]
    inputs: dict[str, Tensor] = {}
    if config.timestep_conditioning:
        inputs["timestep"] = torch.full((batch,), _TIMESTEP)
    for maps in noise_maps(config):  # at their mean
        shape = (maps.count, maps.scale * height, maps.scale * width)
        inputs[f"noise_{maps.scale}x"] = torch.zeros(shape)
    with streamed(lambda: VaeDecoder(config), vae.weights, told) as decoder:
        decoded: Tensor = decoder(latents, **inputs)
    return latents.numpy(), decoded.numpy()


@contextmanager
def streamed(
    build: Callable[[], nn.Module], weights: Mapping[str, StoredTensor], told: Callable[[], None]
) -> Iterator[nn.Module]:
    """A module in fp32 whose large layers have their weights only while they run; `told` before each."""
    with torch.device("meta"):
        module = build()

    def load(layer: nn.Module, prefix: str) -> None:
        for name, parameter in layer.named_parameters(recurse=False):
            stored = read(weights[f"{prefix}.{name}" if prefix else name]).float()
            turned = stored.t() if isinstance(layer, Linear) and name == "weight" else stored
            if turned.shape != parameter.shape:
                raise LtxrtError(f"{prefix}.{name}: {tuple(turned.shape)} is not {tuple(parameter.shape)}")
            layer.register_parameter(name, nn.Parameter(turned.contiguous(), requires_grad=False))

    def unload(layer: nn.Module, *_: Any) -> None:
        for name, parameter in list(layer.named_parameters(recurse=False)):
            layer.register_parameter(name, nn.Parameter(parameter.to("meta"), requires_grad=False))

    for path, layer in module.named_modules():
        if not isinstance(layer, _STREAMED):
            load(layer, path)
            continue

        def before(layer: nn.Module, _inputs: Any, path: str = path) -> None:
            told()  # which may raise to cancel
            load(layer, path)

        layer.register_forward_pre_hook(before)
        layer.register_forward_hook(unload)
    with torch.no_grad():
        yield module
