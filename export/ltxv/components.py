"""The components an export can make: which checkpoint part each comes from and which module is traced.

Contracts come from `ltxrt.engines.contract`; adding a component is one row here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from ltxrt.engines.errors import CheckpointError, setting
from ltxrt.engines.families.ltxv.facts import Facts
from ltxrt.export.checkpoint.part import Part
from ltxrt.export.checkpoint.safetensors import StoredTensor
from ltxrt.export.graph.layers import stored_shapes
from ltxrt.export.ltxv import facts as layout_facts
from ltxrt.export.ltxv.models import t5, transformer, upsampler, vae
from ltxrt.export.ltxv.open import Checkpoint


def _no_constants(_config: Any) -> dict[str, Tensor]:
    return {}


@dataclass(frozen=True)
class Form:
    """The config to build the module from and factors for weights, each from the checkpoint's config."""

    config: Callable[[Any], Any]
    scales: Callable[[Any], dict[str, float]]


_PLAIN = Form(lambda config: config, lambda _config: {})


@dataclass(frozen=True)
class Component:
    """How one component is made.

    `part` is the checkpoint's; `names` the prefixes of the tensors it uses, all if empty; `constants` gives
    the buffers that no checkpoint holds; `forms` says per precision in which other form the same function is
    computed, where the plain one would not do.
    """

    part: str
    module: Callable[[Any], nn.Module]
    names: tuple[str, ...] = ()
    constants: Callable[[Any], dict[str, Tensor]] = _no_constants
    forms: Mapping[str, Form] | None = None

    def form(self, precision: str) -> Form:
        """How the component is computed in `precision`."""
        return (self.forms or {}).get(precision, _PLAIN)


_STATISTICS = "per_channel_statistics."

COMPONENTS: dict[str, Component] = {
    "text_encoder": Component(
        "text_encoder",
        t5.TextEncoder,
        constants=t5.constants,
        # The feed-forward output passes 65504 in T5-XXL: the whole video turns into NaN or a flat colour.
        forms={"fp16": Form(t5.fp16_config, t5.fp16_scales)},
    ),
    "transformer": Component("transformer", transformer.Transformer, constants=transformer.constants),
    "vae_encoder": Component("vae", vae.VaeEncoder, ("encoder.", _STATISTICS)),
    "vae_decoder": Component("vae", vae.VaeDecoder, ("decoder.", _STATISTICS)),
    "latent_upsampler": Component("latent_upsampler", upsampler.LatentUpsampler),
    "temporal_upsampler": Component("temporal_upsampler", upsampler.LatentUpsampler),
}


# How the user adds what a checkpoint lacks.
_SOURCES = {
    "text_encoder": setting("text_encoder"),
    "latent_upsampler": f"{setting('upsampler')}, a spatial one",
    "temporal_upsampler": f"{setting('upsampler')}, a temporal one",
}


def available(checkpoint: Checkpoint) -> tuple[str, ...]:
    """The components whose part the checkpoint has."""
    return tuple(n for n, c in COMPONENTS.items() if getattr(checkpoint, c.part) is not None)


def part(checkpoint: Checkpoint, name: str) -> Part[Any]:
    """The checkpoint's part that component `name` is made from."""
    found: Part[Any] | None = getattr(checkpoint, COMPONENTS[name].part)
    if found is None:
        source = _SOURCES.get(name, f"{setting('vae')}, or another checkpoint")
        what = COMPONENTS[name].part
        purpose = "" if what == name else f" for {name}"
        raise CheckpointError(f"{checkpoint.source} has no {what}{purpose}; give {source}")
    return found


def weights(checkpoint: Checkpoint, name: str) -> dict[str, StoredTensor]:
    """The tensors that component `name` uses, by official name."""
    prefixes = COMPONENTS[name].names
    tensors = part(checkpoint, name).weights
    return {n: t for n, t in tensors.items() if not prefixes or n.startswith(prefixes)}


def part_shapes(name: str, config: Any) -> dict[str, tuple[int, ...]]:
    """Every weight of a checkpoint's part, by official name: what all components made from it use."""
    rows = [row for row in COMPONENTS.values() if row.part == name]
    return {n: s for row in rows for n, s in stored_shapes(partial(row.module, config)).items()}


def facts(checkpoint: Checkpoint) -> Facts:
    """Everything the runtime must know; a text encoder of another width than the transformer's is refused."""
    found = Facts(
        transformer=_apply(layout_facts.transformer_facts, checkpoint.transformer),
        vae=_apply(
            lambda config: layout_facts.vae_facts(config, part(checkpoint, "vae_decoder").weights),
            checkpoint.vae,
        ),
        text_encoder=_apply(layout_facts.text_encoder_facts, checkpoint.text_encoder),
        scheduler=checkpoint.scheduler,
    )
    text, dit = found.text_encoder, found.transformer
    if text and dit and text.width != dit.caption_channels:
        raise CheckpointError(
            f"the text encoder is {text.width} wide but the transformer reads {dit.caption_channels}; "
            "give the text encoder this checkpoint was trained with (T5 v1.1 XXL is 4096 wide)"
        )
    if found.vae and dit and found.vae.latent_channels != dit.in_channels:
        raise CheckpointError(
            f"the VAE makes {found.vae.latent_channels} latent channels but the transformer reads "
            f"{dit.in_channels}; take the VAE from the transformer's own checkpoint"
        )
    return found


def _apply(function: Callable[[Any], Any], found: Part[Any] | None) -> Any:
    return None if found is None else function(found.config)
