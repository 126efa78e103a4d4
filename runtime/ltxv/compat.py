"""Where the official pipeline and diffusers' pipelines differ, and which of them a request follows.

Official `ltx_video/pipelines/pipeline_ltx_video.py`; diffusers `pipeline_ltx.py` and
`pipeline_ltx_image2video.py` ("diffusers"), and `pipeline_ltx_condition.py` ("diffusers-condition"). The
tests compare whole runs with all of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ltxrt.engines.families.ltxv.facts import SchedulerFacts, TransformerFacts
from ltxrt.runtime.noise.cpu import Noise
from ltxrt.runtime.sampling.latents import LatentShape, pack


@dataclass(frozen=True)
class Behaviour:
    """What one reference implementation does.

    encoder_mask: the text encoder ignores padding; max_tokens: the prompt's length, None for the preset's;
    causal_rope: None for the checkpoint's own; sampler: None for the checkpoint's own; image_noise: noise on
    a given image; token_noise: the initial noise is drawn token by token, (1,N,C), else as a grid,
    (1,C,f,h,w); strided_decode_noise: the decode noise is drawn token by token too, as torch fills tensors
    whose axes are permuted in memory; posterior_drawn: a sample of each encoded image or video is drawn,
    though its mean is used here; mix_normalised: decode noise is mixed in before latents are un-normalised;
    stg: presets keep their spatiotemporal guidance and CFG-star; adain: upsampled latents take the first
    pass's statistics; one_generator: everything is drawn from one generator, else what is not the initial
    noise, a keyframe's or a given image's comes from a second one, seeded alike (torch's global one);
    preparation: how given images are made to fit; crops: a size between whole latent cells is the centre of
    the next one above, else it is refused.
    """

    encoder_mask: bool
    max_tokens: int | None
    causal_rope: bool | None
    sampler: str | None
    image_noise: bool
    token_noise: bool
    strided_decode_noise: bool
    posterior_drawn: bool
    mix_normalised: bool
    stg: bool
    adain: bool
    one_generator: bool
    preparation: str
    crops: bool

    def tokens(self, preset: int) -> int:
        return preset if self.max_tokens is None else self.max_tokens

    def rope_is_causal(self, facts: TransformerFacts) -> bool:
        return facts.causal_rope if self.causal_rope is None else self.causal_rope

    def scheduler(self, facts: SchedulerFacts) -> SchedulerFacts:
        """The schedule's facts; uniform sigmas keep its shift, linear-quadratic ones take none."""
        if self.sampler is None:
            return facts
        if self.sampler == "uniform":
            return replace(facts, sampler="uniform", allowed_steps=None)
        return SchedulerFacts(self.sampler, None, None, None)

    def initial_noise(self, noise: Noise, channels: int, shape: LatentShape) -> NDArray[np.float32]:
        """Tokens (1,N,C)."""
        if self.token_noise:
            return noise((1, shape.tokens, channels))
        return pack(noise(shape.grid(channels)))


_DIFFUSERS = Behaviour(
    encoder_mask=False,
    max_tokens=128,
    causal_rope=False,
    sampler="uniform",
    image_noise=False,
    token_noise=False,
    strided_decode_noise=False,
    posterior_drawn=False,
    mix_normalised=False,
    stg=False,
    adain=False,
    one_generator=True,
    preparation="plain",
    crops=False,
)
BEHAVIOURS = {
    "official": Behaviour(
        encoder_mask=True,
        max_tokens=None,
        causal_rope=None,
        sampler=None,
        image_noise=True,
        token_noise=True,
        strided_decode_noise=True,
        posterior_drawn=True,
        mix_normalised=True,
        stg=True,
        adain=True,
        one_generator=False,
        preparation="official",
        crops=True,
    ),
    "diffusers": _DIFFUSERS,
    "diffusers-condition": replace(
        _DIFFUSERS,
        encoder_mask=True,
        max_tokens=256,
        causal_rope=True,
        sampler="linear_quadratic",
        image_noise=True,
    ),
}
