"""The releases of LTX-Video, one frozen row each, with only the differences from an earlier one.

The only module that knows versions by name. Presets follow the official `configs/*.yaml` and CLI defaults
(Lightricks/LTX-Video), also those of 0.9.7, which its head no longer holds. What a checkpoint's own header
says about its scheduler goes before the row.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from ltxrt.engines.errors import CheckpointError
from ltxrt.engines.families.ltxv.facts import Pass, Preset, SchedulerFacts
from ltxrt.export.ltxv.config import TransformerConfig, VaeConfig
from ltxrt.export.ltxv.vae_graphs import vae_graph


@dataclass(frozen=True)
class Version:
    """One release: how it is recognised, and what its files do not contain."""

    name: str
    release: str
    layers: int  # of the transformer: 28 is the 2B model, 48 the 13B model
    vae_graph: str
    distilled: bool
    causal_rope: bool
    scheduler: SchedulerFacts
    presets: Mapping[str, Preset]
    licence: str
    upsampler: str = ""  # between the two passes of the default preset, on the hub
    certain: bool = True  # False: others share its architecture and the file name did not decide

    @property
    def size(self) -> str:
        return "13b" if self.layers == 48 else "2b"


_RAIL = "LTX-Video weights under their own RAIL-type licence; read it where you got them"
_OPENRAIL = "LTX-Video weights under OpenRail-M; read its use restrictions where you got them"
_OPEN_WEIGHTS = (
    "LTX-Video weights under the LTXV Open Weights licence, with a revenue threshold for commercial use; "
    "read it where you got them"
)
_SHIFTED = SchedulerFacts("uniform", "sd3", 0.1, None)
_LINEAR_QUADRATIC = SchedulerFacts("linear_quadratic", None, None, None)
_EIGHT_STEPS = (1.0, 0.9937, 0.9875, 0.9812, 0.975, 0.9094, 0.725, 0.4219)
_FEW_STEPS = replace(_LINEAR_QUADRATIC, allowed_steps=_EIGHT_STEPS)

# One pass with the official base files' guidance, and one with none.
_GUIDED = Pass(
    steps=40,
    timesteps=None,
    skip_initial=0,
    skip_final=0,
    guidance_scale=(3.0,),
    stg_scale=(1.0,),
    rescaling_scale=(0.7,),
    guidance_timesteps=None,
    skip_block_list=((19,),),
    stg_mode="attention_values",
    cfg_star=False,
    stochastic=False,
)
_UNGUIDED = replace(
    _GUIDED, steps=8, guidance_scale=(1.0,), stg_scale=(0.0,), rescaling_scale=(1.0,), skip_block_list=((),)
)
# The 13B-dev models: guidance rises and falls along the schedule, over other blocks each time.
_LISTS = replace(
    _GUIDED,
    steps=30,
    guidance_scale=(1.0, 1.0, 6.0, 8.0, 6.0, 1.0, 1.0),
    stg_scale=(0.0, 0.0, 4.0, 4.0, 4.0, 2.0, 1.0),
    rescaling_scale=(1.0, 1.0, 0.5, 0.5, 1.0, 1.0, 1.0),
    guidance_timesteps=(1.0, 0.996, 0.9933, 0.985, 0.9767, 0.9008, 0.618),
    skip_block_list=((), (11, 25, 35, 39), (22, 35, 39), (28,), (28,), (28,), (28,)),
    cfg_star=True,
)
_DEV_FIRST = replace(_LISTS, skip_final=3)
_DEV_SECOND = replace(
    _LISTS,
    skip_initial=17,
    guidance_scale=(1.0,),
    stg_scale=(1.0,),
    rescaling_scale=(1.0,),
    guidance_timesteps=(1.0,),
    skip_block_list=((27,),),
)
_DISTILLED_FIRST = replace(_UNGUIDED, steps=7, timesteps=_EIGHT_STEPS[:7], skip_block_list=((42,),))
_DISTILLED_SECOND = replace(_DISTILLED_FIRST, steps=3, timesteps=_EIGHT_STEPS[5:])

_FIRST_PRESET = Preset(
    passes=(_GUIDED,),
    downscale_factor=1.0,
    adain_factor=1.0,
    tone_map=0.0,
    height=480,
    width=704,
    num_frames=121,
    frame_rate=25.0,
    negative_prompt="worst quality, inconsistent motion, blurry, jittery, distorted",
    max_tokens=256,
    decode_timestep=0.0,  # the first VAE has neither a timestep nor decode noise
    decode_noise_scale=0.0,
    image_noise_scale=0.15,
)
_DECODE_NOISE = replace(_FIRST_PRESET, decode_timestep=0.05, decode_noise_scale=0.025)
_LARGE = replace(_DECODE_NOISE, height=704, width=1216, frame_rate=30.0)


def _two_passes(first: Pass, second: Pass, single: Pass) -> dict[str, Preset]:
    """The official two passes, and one pass at full size for bundles without a latent upsampler."""
    default = replace(_LARGE, passes=(first, second), downscale_factor=0.6666666)
    return {"default": default, "single-pass": replace(_LARGE, passes=(single,))}


_V090 = Version("0.9.0", "0.9.0", 28, "0.9.0", False, False, _SHIFTED, {"default": _FIRST_PRESET}, _RAIL)
_V091 = replace(_V090, name="0.9.1", release="0.9.1", vae_graph="0.9.1", presets={"default": _DECODE_NOISE})
_V095 = replace(
    _V091,
    name="0.9.5",
    release="0.9.5",
    vae_graph="0.9.5",
    causal_rope=True,
    scheduler=_LINEAR_QUADRATIC,
    licence=_OPENRAIL,
)
_V096 = replace(_V095, name="0.9.6-dev", release="0.9.6", presets={"default": _LARGE}, licence=_OPEN_WEIGHTS)
_V096_DISTILLED = replace(
    _V096,
    name="0.9.6-distilled",
    distilled=True,
    scheduler=_FEW_STEPS,
    presets={"default": replace(_LARGE, passes=(replace(_UNGUIDED, stochastic=True),))},
)
_UPSAMPLER_097 = "Lightricks/LTX-Video:ltxv-spatial-upscaler-0.9.7.safetensors"
_UPSAMPLER_098 = "Lightricks/LTX-Video:ltxv-spatial-upscaler-0.9.8.safetensors"
_V097 = replace(
    _V096,
    name="0.9.7-dev",
    release="0.9.7",
    layers=48,
    upsampler=_UPSAMPLER_097,
    presets=_two_passes(_DEV_FIRST, _DEV_SECOND, single=_LISTS),
)
_V097_DISTILLED = replace(
    _V096_DISTILLED,
    name="0.9.7-distilled",
    release="0.9.7",
    layers=48,
    upsampler=_UPSAMPLER_097,
    presets=_two_passes(_DISTILLED_FIRST, _DISTILLED_SECOND, single=_UNGUIDED),
)
_V098_2B_DISTILLED = replace(
    _V097_DISTILLED, name="0.9.8-2b-distilled", release="0.9.8", layers=28, upsampler=_UPSAMPLER_098
)
_V098_13B = replace(_V097, name="0.9.8-13b-dev", release="0.9.8", upsampler=_UPSAMPLER_098)
_V098_13B_DISTILLED = replace(
    _V097_DISTILLED,
    name="0.9.8-13b-distilled",
    release="0.9.8",
    upsampler=_UPSAMPLER_098,
    presets={
        name: replace(preset, tone_map=0.6 if name == "default" else 0.0)
        for name, preset in _V097_DISTILLED.presets.items()
    },
)

VERSIONS = (
    _V090, _V091, _V095, _V096, _V096_DISTILLED,
    _V097, _V097_DISTILLED, _V098_2B_DISTILLED, _V098_13B, _V098_13B_DISTILLED,
)  # fmt: skip


def version(name: str) -> Version:
    """The row of that name."""
    for row in VERSIONS:
        if row.name == name:
            return row
    raise CheckpointError(f"version {name!r} is not known; known are {', '.join(v.name for v in VERSIONS)}")


def presets(row: Version, layers: int) -> dict[str, Preset]:
    """The row's presets for a transformer of `layers` blocks.

    A model of another depth than the release's (a small one for tests) has its perturbed blocks at the same
    relative depth. Blocks are left as they are where guidance does not perturb them.
    """
    if layers == row.layers:
        return dict(row.presets)

    def scaled(one: Pass) -> Pass:
        lists = (sorted({block * layers // row.layers for block in blocks}) for blocks in one.skip_block_list)
        return replace(one, skip_block_list=tuple(map(tuple, lists)))

    return {n: replace(p, passes=tuple(map(scaled, p.passes))) for n, p in row.presets.items()}


def recognise(
    transformer: TransformerConfig | None,
    vae: VaeConfig | None,
    scheduler: SchedulerFacts | None,
    file_name: str,
    override: str | None = None,
) -> Version:
    """The row of a checkpoint: by its architecture, then by its file name.

    Releases that share an architecture and are not told apart by the name give the oldest, `certain` False.
    Layer counts of no release (small test models) decide nothing.
    """
    fitting = [v for v in VERSIONS if _fits(v, transformer, vae, scheduler)]
    if override is not None:
        row = version(override)
        if row not in fitting:
            possible = ", ".join(v.name for v in fitting) or "no known release"
            raise CheckpointError(
                f"version {override} does not fit this checkpoint "
                f"({_architecture(transformer, vae, scheduler)}); it could be {possible}"
            )
        return row
    if not fitting:
        raise CheckpointError(
            f"this checkpoint is no known release ({_architecture(transformer, vae, scheduler)}); "
            "do its transformer and its VAE belong together?"
        )
    if vae is None:
        fitting = _narrow(fitting, lambda v: _same_era(v, transformer, scheduler))
    named = _narrow(fitting, lambda v: _named(v, file_name))
    return named[0] if len(named) == 1 else replace(named[0], certain=False)


def _fits(
    row: Version,
    transformer: TransformerConfig | None,
    vae: VaeConfig | None,
    scheduler: SchedulerFacts | None,
) -> bool:
    """True if the architecture is compatible with this row."""
    layers = transformer.layers if transformer else None
    graph = vae_graph(vae) if vae else None
    return (
        (layers in (row.layers, None) or layers not in {v.layers for v in VERSIONS})
        and graph in (row.vae_graph, None)
        and (row.distilled or not (scheduler and scheduler.allowed_steps))
    )


def _same_era(row: Version, transformer: TransformerConfig | None, scheduler: SchedulerFacts | None) -> bool:
    """Weak evidence, for files without a VAE: the embedded sampler and rotary positions."""
    causal = transformer is not None and transformer.causal_rope
    return (not causal or row.causal_rope) and (
        scheduler is None or scheduler.sampler == row.scheduler.sampler
    )


def _named(row: Version, file_name: str) -> bool:
    name = file_name.lower()
    number = re.search(r"0\.9(?:\.(\d))?(?!\d)", name)
    size = re.search(r"(?<![\d.])(2|13)b(?![a-z])", name)
    flavour = "distilled" in name or (False if re.search(r"(?<![a-z])dev(?![a-z])", name) else None)
    return (
        (number is None or row.release == f"0.9.{number[1] or 0}")
        and (size is None or row.size == size[0])
        and flavour in (None, row.distilled)
    )


def _narrow(rows: list[Version], keep: Callable[[Version], bool]) -> list[Version]:
    """The matching rows, or all of them if none match."""
    return [v for v in rows if keep(v)] or rows


def _architecture(
    transformer: TransformerConfig | None, vae: VaeConfig | None, scheduler: SchedulerFacts | None
) -> str:
    parts = [f"{transformer.layers} layers"] if transformer else []
    if vae:
        parts.append(f"{vae_graph(vae) or 'unknown'} VAE graph")
    if scheduler and scheduler.allowed_steps:
        parts.append("distilled")
    return ", ".join(parts)
