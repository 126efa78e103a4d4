"""The traced modules in torch at full width: 16-bit and FP8 against fp32, and the largest activations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ltxrt.export.graph import fp8
from ltxrt.export.ltxv.fp8 import LAYOUT
from ltxrt.parity.check.tolerances import tolerance
from ltxrt.parity.gpu import models
from ltxrt.parity.gpu.parts import Place, Row, attempt, one_line, torch_on
from ltxrt.parity.metrics import relative_l2

TOKENS = (6144, 13376)  # 121 frames of 512x768 and of 704x1216
GRIDS = ((16, 16, 24), (16, 22, 38))
SMALL_TOKENS, SMALL_GRIDS = (48,), ((2, 2, 3),)
TEXT = 256
FP8_ERROR = 6e-2  # of one product: two roundings to 4 bits
FP8_PRODUCTS = 6  # of the first block that is quantised
LARGEST_FP16 = 65504.0


@dataclass
class Seen:
    """The largest magnitude in the outputs of each watched block."""

    largest: dict[str, float] = field(default_factory=dict)

    @property
    def top(self) -> tuple[str, float]:
        return max(self.largest.items(), key=lambda item: item[1], default=("", 0.0))


def run(place: Place) -> Iterator[Row]:
    torch_on(place)
    sizes = tuple(zip(*((SMALL_TOKENS, SMALL_GRIDS) if place.cpu else (TOKENS, GRIDS))))
    chosen = models.models(place)
    for tokens, grid in sizes:
        feeds: dict[str, Callable[[], dict[str, Tensor]]] = {
            "transformer": partial(_tokens, chosen.transformer, tokens, place),
            "vae_decoder": partial(_latents, chosen.vae, grid, place),
            "vae_encoder": partial(_pixels, grid, place),
        }
        if tokens == sizes[0][0]:
            feeds["text_encoder"] = partial(_ids, chosen.text_encoder, place)
        for component, feed in feeds.items():
            yield from _component(place, component, getattr(chosen, models.PARTS[component]), feed, tokens)
    yield from _fp8(place, chosen.transformer, sizes[0][0])


def _component(
    place: Place, component: str, config: Any, feed: Callable[[], dict[str, Tensor]], size: int
) -> Iterator[Row]:
    """fp32 once, then each precision against it."""
    inputs = feed()
    try:
        reference, seen = _outputs(place, component, config, "fp32", inputs)
    except Exception as error:  # the precisions have nothing to be compared with
        yield Row(f"{component} fp32, size {size}", False, problem=one_line(error))
        return
    block, largest = seen.top
    figures = {"largest activation": largest, "in": block, "beyond fp16": largest > LARGEST_FP16}
    yield Row(f"{component} fp32, size {size}", None, figures)
    for precision in ("fp16", "bf16"):
        yield attempt(
            f"{component} {precision}, size {size}",
            partial(_compared, place, component, config, precision, inputs, reference, size),
        )


def _compared(
    place: Place,
    component: str,
    config: Any,
    precision: str,
    inputs: dict[str, Tensor],
    reference: np.ndarray,
    size: int,
) -> Row:
    output, seen = _outputs(place, component, config, precision, inputs)
    error = relative_l2(output, reference)
    block, largest = seen.top
    figures = {"relative L2": error, "largest activation": largest, "in": block}
    passed = error <= tolerance(precision).relative_l2
    return Row(f"{component} {precision}, size {size}", passed, figures)


def _outputs(
    place: Place, component: str, config: Any, precision: str, inputs: dict[str, Tensor]
) -> tuple[np.ndarray, Seen]:
    """The module's output on the host, and the magnitudes in its blocks' outputs."""
    module = models.filled(component, config, precision, place.device)
    with torch.no_grad(), watched(module) as seen:
        output = module(**inputs).float().cpu().numpy()
    del module
    if not place.cpu:
        torch.cuda.empty_cache()
    return output, seen


@contextmanager
def watched(module: nn.Module) -> Iterator[Seen]:
    """Record the largest output magnitude of every member of a ModuleList: blocks, layers."""
    seen, handles = Seen(), []

    def watch(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            tensors = [
                t for t in (output if isinstance(output, tuple | list) else [output]) if isinstance(t, Tensor)
            ]
            for tensor in tensors:
                seen.largest[name] = max(seen.largest.get(name, 0.0), float(tensor.detach().abs().max()))

        return hook

    for name, parent in module.named_modules():
        if isinstance(parent, nn.ModuleList):
            for index, child in enumerate(parent):
                handles.append(child.register_forward_hook(watch(f"{name}.{index}")))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _tokens(config: Any, tokens: int, place: Place) -> dict[str, Tensor]:
    return models.transformer_feed(config, 1, tokens, TEXT, place.device)


def _latents(config: Any, grid: tuple[int, int, int], place: Place) -> dict[str, Tensor]:
    generator = torch.Generator(place.device).manual_seed(1)
    latents = torch.randn((1, config.latent_channels, *grid), generator=generator, device=place.device)
    feed = {"latents": latents}
    if config.timestep_conditioning:
        feed["timestep"] = torch.full((1,), 0.05, device=place.device)
    return feed


def _pixels(grid: tuple[int, int, int], place: Place) -> dict[str, Tensor]:
    generator = torch.Generator(place.device).manual_seed(2)
    frames, height, width = grid
    shape = (1, 3, 8 * frames - 7, 32 * height, 32 * width)
    return {"pixels": torch.rand(shape, generator=generator, device=place.device) * 2 - 1}


def _ids(config: Any, place: Place) -> dict[str, Tensor]:
    generator = torch.Generator(place.device).manual_seed(3)
    ids = torch.randint(0, config.vocab_size, (1, TEXT), generator=generator, device=place.device)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def _fp8(place: Place, config: Any, tokens: int) -> Iterator[Row]:
    """Products of a middle block's weights by the GPU's own FP8 kernel, against fp32 on the same numbers."""
    module = models.filled("transformer", config, "bf16", place.device)
    names = [
        n
        for n in fp8.projections(LAYOUT, dict(module.named_parameters()), config.layers)
        if ".attn1." in n or ".ff." in n
    ]
    inputs: dict[str, Tensor] = {}

    def keeper(name: str) -> Callable[..., None]:
        def keep(_module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            inputs[name] = arguments[0].detach().flatten(0, 1)

        return keep

    for name in names[:FP8_PRODUCTS]:
        module.get_submodule(name.removesuffix(".weight")).register_forward_pre_hook(keeper(name))
    with torch.no_grad():
        module(**models.transformer_feed(config, 1, tokens, TEXT, place.device))
    for name, activation in inputs.items():
        weight = module.get_parameter(name).detach()
        yield attempt(f"fp8 {name}", partial(_scaled_product, name, activation, weight))


def _scaled_product(name: str, activation: Tensor, weight: Tensor) -> Row:
    wanted = activation.float() @ weight.float()
    stored, per_channel = fp8.quantise(weight, torch.bfloat16)
    step = activation.float().abs().max() / fp8.LARGEST
    rounded = (activation.float() / step).to(torch.float8_e4m3fn)
    rows = step.expand(activation.shape[0], 1).contiguous()
    product = torch._scaled_mm(
        rounded,
        stored.t().contiguous().t(),  # its columns one after the other
        scale_a=rows,
        scale_b=per_channel.float()[None].contiguous(),
        out_dtype=torch.bfloat16,
    )
    error = relative_l2(product.float().cpu().numpy(), wanted.cpu().numpy())
    raw = float((rounded.float() @ stored.float()).abs().max())
    return Row(f"fp8 {name}", error <= FP8_ERROR, {"relative L2": error, "largest unscaled sum": raw})
