"""The transformer in a pass: its inputs, and each step's branches as one call of 1, 2 or 3 samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from ltxrt.engines.backend import BoundEngine, Engine
from ltxrt.runtime.ltxv.guidance import MODES, STREAM
from ltxrt.runtime.ltxv.noise import NoiseSources
from ltxrt.runtime.ltxv.plan import Plan
from ltxrt.runtime.ltxv.prompt import Text
from ltxrt.runtime.sampling import guidance, rope
from ltxrt.runtime.sampling.conditioning import TokenStream
from ltxrt.runtime.sampling.denoise import Sampling, Step, denoise
from ltxrt.runtime.sampling.guidance import StepGuidance
from ltxrt.runtime.sampling.numerics import check_finite

Array = NDArray[np.float32]


def steps(
    plan: Plan, number: int, stream: TokenStream, text: Text, sources: NoiseSources, engine: Engine
) -> Iterator[Step]:
    """The steps of pass `number` over all of the stream's tokens, its conditions' own among them."""
    one, settings = plan.passes[number], plan.settings
    noisy = settings.reference.image_noise and settings.conditions
    sampling = Sampling(
        settings.preset.image_noise_scale if noisy else 0.0, sources.later.randn if one.stochastic else None
    )
    transformer = GuidedTransformer(plan, number, stream, text, engine)
    for step in denoise(transformer, {STREAM: stream}, one.schedule, sources.first, sampling):
        check_finite(step.latents[STREAM], "transformer", f"step {step.index + 1} of {len(one.sigmas)}")
        yield step


class GuidedTransformer:
    """The guided velocity of a step from an engine of the transformer (`denoise.Velocity`).

    Inputs that are constant in a pass are bound once; those that depend on the batch and on the perturbed
    blocks are bound again when these change.
    """

    def __init__(self, plan: Plan, number: int, stream: TokenStream, text: Text, engine: Engine) -> None:
        facts = plan.model.transformer
        cos, sin = rope.tables(stream.coords, facts.width, facts.rope_theta, facts.rope_max_positions)
        self._shared = engine.bind(rope_cos=cos, rope_sin=sin)
        self._steps, self._blocks = plan.passes[number].guidance, facts.layers
        self._text, self._index = text, stream.strengths.index
        self._key: tuple[object, ...] = ()
        self._bound: BoundEngine | None = None

    def __call__(
        self, latents: Mapping[str, Array], timesteps: Mapping[str, Array], index: int
    ) -> dict[str, Array]:
        step = self._steps[index]
        count, call = len(step.branches), self._binding(step)
        result = call(
            latents=np.repeat(latents[STREAM], count, axis=0),
            timesteps=np.repeat(timesteps[STREAM], count, axis=0),
        )["velocity"]
        check_finite(result, "transformer", f"step {index + 1} of {len(self._steps)}")
        velocities = {branch: {STREAM: result[i : i + 1]} for i, branch in enumerate(step.branches)}
        return guidance.predict(step, velocities, latents, timesteps)

    def _binding(self, step: StepGuidance) -> BoundEngine:
        key = (step.branches, *step.perturbed.items())
        if self._bound is None or key != self._key:
            self._bound = None  # frees the old inputs before the new ones are uploaded
            self._bound, self._key = self._bind(step), key
        return self._bound

    def _bind(self, step: StepGuidance) -> BoundEngine:
        rows = self._text.rows(step.branches)
        return self._shared.bind(
            context=self._text.context[rows],
            context_mask=self._text.mask[rows],
            timestep_index=np.repeat(self._index, len(rows), axis=0),
            perturbation_mask=guidance.perturbation_mask(step, self._blocks, len(MODES)),
        )
