"""Where the official pipeline and diffusers' LTXPipeline differ, and which of the two a request follows.

Both are read from source: official `ltx_video/pipelines/pipeline_ltx_video.py`; diffusers
`pipeline_ltx.py` and `pipeline_ltx_image2video.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ltxrt.engines.errors import InputError
from ltxrt.engines.facts import SchedulerFacts, TransformerFacts
from ltxrt.runtime.latents import LatentShape, pack
from ltxrt.runtime.noise import Noise


@dataclass(frozen=True)
class Reference:
    """One implementation's habits.

    encoder_mask: the text encoder ignores padding; max_tokens: the prompt's length, None for the preset's;
    causal_rope: None for the checkpoint's own; own_schedule: the checkpoint's sampler, else uniform sigmas;
    image_noise: noise on a given image; token_noise: the initial noise is drawn token by token, (1,N,C), else
    as a grid, (1,C,f,h,w); mix_normalised: decode noise is mixed in before latents are un-normalised.
    """

    encoder_mask: bool
    max_tokens: int | None
    causal_rope: bool | None
    own_schedule: bool
    image_noise: bool
    token_noise: bool
    mix_normalised: bool

    def tokens(self, preset: int) -> int:
        return preset if self.max_tokens is None else self.max_tokens

    def rope_is_causal(self, facts: TransformerFacts) -> bool:
        return facts.causal_rope if self.causal_rope is None else self.causal_rope

    def scheduler(self, facts: SchedulerFacts) -> SchedulerFacts:
        return facts if self.own_schedule else replace(facts, sampler="uniform", allowed_steps=None)

    def initial_noise(self, noise: Noise, channels: int, shape: LatentShape) -> NDArray[np.float32]:
        """Tokens (1,N,C)."""
        if self.token_noise:
            return noise((1, shape.tokens, channels))
        return pack(noise((1, channels, shape.frames, shape.height, shape.width)))


REFERENCES = {
    "official": Reference(
        encoder_mask=True,
        max_tokens=None,
        causal_rope=None,
        own_schedule=True,
        image_noise=True,
        token_noise=True,
        mix_normalised=True,
    ),
    "diffusers": Reference(
        encoder_mask=False,
        max_tokens=128,
        causal_rope=False,
        own_schedule=False,
        image_noise=False,
        token_noise=False,
        mix_normalised=False,
    ),
}


def reference(name: str) -> Reference:
    """The row of that name."""
    if name not in REFERENCES:
        raise InputError(f"--reference {name!r}: must be one of {', '.join(REFERENCES)}")
    return REFERENCES[name]
