"""The settings of a request: one row for each, from which options, files, JSON, checks and metadata are made.

A new setting is a row here, a field of `Request` of the same name, and the code that uses it. Standard
library only, since `ltx-run --help` reads it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from ltxrt.engines.errors import InputError, setting
from ltxrt.engines.parsing.near import nearest
from ltxrt.engines.parsing.text import quoted
from ltxrt.runtime.request import kinds
from ltxrt.runtime.request.kinds import (
    BLOCKS,
    CONDITIONS,
    FILE,
    GROUP,
    MEMORY,
    NUMBER,
    NUMBERS,
    SWITCH,
    TEXT,
    WHOLE,
    Kind,
    choice,
)


class Scope(Enum):
    """What a setting applies to."""

    REQUEST = "the request"
    PASS = "the first pass; the second has its own"
    BOTH = "all passes; the second may have its own"


@dataclass(frozen=True)
class Setting:
    """A row of the table.

    bounds: inclusive, of each number in it, far beyond what the models can do: they catch typing errors;
    default: the request's; None leaves it to the preset or another default; shown: the default in help texts,
    if that is another; option: its name, if it does not follow from the setting's; older: former names of the
    option; keys: other names, in files and of the option, which works under all of them and shows one;
    repeated: the option may be given several times; recorded: its value is among the settings in a video's
    metadata.
    """

    name: str
    kind: Kind
    help: str
    bounds: tuple[float, float] | None = None
    default: Any = None
    scope: Scope = Scope.REQUEST
    shown: str | None = None
    option: str = ""
    older: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    metavar: str | None = None
    repeated: bool = False
    recorded: bool = False

    def check(self, value: Any, name: str | None = None) -> None:
        """Raise InputError unless `value` is valid for this setting, which messages call `name`."""
        label = setting(name or self.name)
        if not self.kind.valid(value):
            raise InputError(f"{label} {quoted(value)}: must be {self.kind.what}")
        if isinstance(value, str):
            _check_text(label, value)
        if isinstance(value, list | tuple) and len(value) > kinds.LONGEST_LIST:
            raise InputError(f"{label} has {len(value)} entries; give up to {kinds.LONGEST_LIST}")
        if self.bounds is not None:
            low, high = self.bounds
            for number in value if isinstance(value, list | tuple) else (value,):
                if not low <= number <= high:  # NaN compares false; an int may be too large to be converted
                    raise InputError(
                        f"{label} {quoted(number)}: must be between {_exact(low)} and {_exact(high)}"
                    )


def _exact(bound: float) -> str:
    """A bound as it is written: a whole number of up to 20 digits in full."""
    return str(bound) if isinstance(bound, int) else f"{bound:g}"


def _check_text(label: str, text: str) -> None:
    """Raise InputError for bytes that are not UTF-8, which Python keeps from a command line."""
    if len(text) > kinds.LONGEST_TEXT:
        raise InputError(f"{label} has {len(text)} characters; give up to {kinds.LONGEST_TEXT}")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        given = quoted(text[max(error.start - 20, 0) : error.end + 20])
        raise InputError(f"{label} is no UTF-8 text at {given}; give it in UTF-8") from error


# Bytes of activations; the same on every machine, because tiles are blended and a seed must give the same
# video.
VAE_MEMORY = 8 * 2**30
DRAW_SEED = -1  # in place of a seed: one is drawn
PASS, BOTH = Scope.PASS, Scope.BOTH
UNIT = (0, 1)
_STG_MODES = choice(
    *("attention_values", "attention_skip", "transformer_block"),
    also={"stg_av": "attention_values", "stg_as": "attention_skip", "stg_t": "transformer_block"},
    idle=("residual", "stg_r"),
)
_SAMPLERS = choice("uniform", "linear_quadratic", also={"from_checkpoint": None})

# Heading in `ltx-run --help` → its settings. What has no default here is the preset's.
# fmt: off
GROUPS: Mapping[str, tuple[Setting, ...]] = {
    "Basics": (
        Setting("prompt", TEXT, "What the video shows.", shown=""),
        Setting("negative_prompt", TEXT, "What the video must not show."),
        Setting("preset", TEXT, "One of the bundle's presets.", default="default", metavar="NAME"),
        Setting("height", WHOLE, "Height in pixels; cropped from the next multiple of 32.", (1, 8192),
                recorded=True),
        Setting("width", WHOLE, "Width in pixels; cropped from the next multiple of 32.", (1, 8192),
                recorded=True),
        Setting("num_frames", WHOLE, "Number of frames; cut from the next 8k+1.", (1, 4097), recorded=True),
        Setting("frame_rate", NUMBER, "Frames per second.", (1, 240),
                keys=("fps",), recorded=True),
        Setting("steps", WHOLE, "Steps of the schedule, skipped ones included.", (1, 1000),
                scope=PASS, keys=("num_inference_steps",)),
        Setting("seed", WHOLE, "Same seed, same video; -1 draws one and says which.",
                (DRAW_SEED, 2**64 - 1), default=0),
    ),
    "Images and video": (
        Setting("image", FILE, "First frame; cropped and scaled to the video's size.", shown="",
                metavar="FILE"),
        Setting("image_strength", NUMBER, "Strength of --image, from 0, ignored, to 1.", UNIT, default=1.0),
        Setting("conditions", CONDITIONS,
                "An image or video as part of the video, beginning at a frame; may be repeated.",
                default=(), option="--condition", metavar="MEDIA[@FRAME[:STRENGTH]]", repeated=True),
        Setting("input_video", FILE, "Source video (video-to-video).", shown="", metavar="FILE"),
        Setting("denoise_strength", NUMBER, "Share of the steps that are applied to --input-video.", UNIT,
                shown="", recorded=True),
        Setting("preparation", TEXT,
                "Preprocessing of images: official, plain, none, or steps such as crop,blur,codec.",
                shown="--compat's", recorded=True),
        Setting("image_noise_scale", NUMBER, "Noise added to conditioning images, times sigma squared.", UNIT,
                keys=("image_cond_noise_scale",), recorded=True),
    ),
    "Steps and decoding": (
        Setting("timesteps", NUMBERS, "Explicit sigmas instead of steps: 1,0.9875,0.725", scope=PASS),
        Setting("skip_initial", WHOLE, "Steps skipped at the beginning; needs --input-video.", (0, 1000),
                scope=PASS, keys=("skip_initial_inference_steps",)),
        Setting("skip_final", WHOLE, "Steps skipped at the end; the last remaining one goes to 0.", (0, 1000),
                scope=PASS, keys=("skip_final_inference_steps",)),
        Setting("sampler", _SAMPLERS, "Distribution of the sigmas, unshifted.", shown="the checkpoint's",
                recorded=True),
        Setting("stochastic", SWITCH,
                "Predict the clean video and add new noise in each step, in all passes.",
                scope=BOTH, keys=("stochastic_sampling",)),
        Setting("max_tokens", WHOLE, "Number of tokens at which a prompt is truncated.", (2, 512),
                recorded=True),
        Setting("tone_map", NUMBER, "Compression of the latents before decoding; 0 is off.", UNIT,
                scope=BOTH, keys=("tone_map_compression_ratio",), recorded=True),
        Setting("decode_timestep", NUMBER, "Noise level that the decoder assumes in its input.", UNIT,
                recorded=True),
        Setting("decode_noise_scale", NUMBER, "Noise added before decoding, for the decoder to remove.", UNIT,
                recorded=True),
    ),
    "Guidance": (
        Setting("guidance_scale", NUMBERS,
                "Classifier-free guidance; 1 is off; a list has an entry for each of --guidance-timesteps.",
                (0, 100), scope=PASS),
        Setting("stg_scale", NUMBERS, "Spatiotemporal guidance by --skip-block-list; 0 is off.", (0, 100),
                scope=PASS),
        Setting("rescaling_scale", NUMBERS, "Rescaling with spatiotemporal guidance; 1 is off.", UNIT,
                scope=PASS),
        Setting("guidance_timesteps", NUMBERS, "Sigmas at which the entries of such lists begin.", UNIT,
                scope=PASS),
        Setting("skip_block_list", BLOCKS, "Blocks that spatiotemporal guidance perturbs; with ; a list for "
                "each timestep: ;11,25;28 begins with an empty one.", scope=PASS),
        Setting("stg_mode", _STG_MODES, "What spatiotemporal guidance perturbs.",
                scope=PASS),
        Setting("cfg_star", SWITCH, "Project the negative velocity onto the positive one.", scope=PASS,
                keys=("cfg_star_rescale",)),
        Setting("guidance_rescale", NUMBER, "diffusers' rescaling of guidance; 0 is off.", UNIT,
                default=0.0, recorded=True),
    ),
    "Two passes": (
        Setting("two_passes", SWITCH, "A small first pass, upsampled for a second one; or a single pass.",
                option="--two-passes/--one-pass"),
        Setting("second_pass", GROUP, "A setting of the second pass; may be repeated. KEY is {keys}.",
                default={}, shown="", metavar="KEY=VALUE", repeated=True),
        Setting("downscale_factor", NUMBER, "Relative size of the first of two passes.", (0.1, 1),
                recorded=True),
        Setting("adain_factor", NUMBER, "Share of the first pass's statistics in upsampled latents.", UNIT,
                recorded=True),
    ),
    "Reproducing torch and official runs": (
        Setting("reference", choice("official", "diffusers", "diffusers-condition"),
                "Implementation to reproduce.",
                default="official", option="--compat", older=("--reference",), keys=("compat",)),
        Setting("generator", choice("cpu", "cuda"), "Generator of torch that seeds reproduce.",
                default="cpu", recorded=True),
        Setting("gpu", TEXT, "The GPU of --generator cuda, such as H100 or 'RTX 4090'.", shown="",
                metavar="NAME", recorded=True),
        Setting("noise_layout", choice("official", "diffusers"),
                "Order in which noise is drawn.", shown="--compat's", option="--noise",
                recorded=True),
        Setting("noise_dtype", choice("f32", "bf16"),
                "Type in which noise is drawn, bf16 in official GPU runs.",
                default="f32", recorded=True),
        Setting("noise", FILE, "The initial noise as a .npy array.", shown="", option="--noise-file",
                metavar="FILE"),
    ),
    "Performance": (
        Setting("vae_memory", MEMORY,
                "Memory for the autoencoder's activations; it works in blended tiles if it needs more.",
                (1, 2**63), default=VAE_MEMORY, shown="8GiB", metavar="SIZE", recorded=True),
    ),
}
# fmt: on
SETTINGS = {row.name: row for rows in GROUPS.values() for row in rows}
# What the second pass may set by itself, as in official files including the tone mapping after it.
OF_A_PASS = {name: row for name, row in SETTINGS.items() if row.scope is not Scope.REQUEST}


def check(values: Mapping[str, Any]) -> None:
    """Raise InputError, which names the setting, for invalid `values` of a request's fields."""
    for name, row in SETTINGS.items():
        if values[name] is not None or row.default is not None:
            row.check(values[name])
    for name, value in values["second_pass"].items():
        if name not in OF_A_PASS:
            known = ", ".join(OF_A_PASS)
            raise InputError(
                f"{setting('second_pass')} {quoted(name)}: not a field of a pass; they are {known}"
            )
        if value is not None:
            OF_A_PASS[name].check(value, f"second_pass.{name}")


def why_unknown(key: object, known: Iterable[str], also: Iterable[str] = ()) -> str:
    """The message for an unknown setting `key`, with the nearest name in `known` or `also`."""
    names = list(known)
    near = nearest(str(key), (*names, *also))
    hint = f"the nearest known one is {near}" if near else f"known here are {', '.join(names)}"
    return f"unknown key {quoted(str(key), 60)}; {hint}"
