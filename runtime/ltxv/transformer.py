"""The transformer as a velocity function: each step's guidance packed into one call of 1, 2 or 3 samples.

It knows an engine and arrays; which guidance a step takes comes from `guidance_plan`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ltxrt.engines.backend import BoundEngine, Engine
from ltxrt.runtime.sampling import guidance, guidance_plan
from ltxrt.runtime.sampling.guidance_plan import StepGuidance
from ltxrt.runtime.sampling.numerics import check_finite

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Text:
    """Hidden states (P,T,C) and mask (P,T) bool: of the negative prompt, if any, and the positive."""

    context: Array
    mask: NDArray[np.bool_]

    def rows(self, parts: Sequence[str]) -> list[int]:
        """Which prompt each sub-batch reads: the perturbed one reads the positive."""
        return [0 if part == "negative" else len(self.context) - 1 for part in parts]


@dataclass(frozen=True)
class Guided:
    """How the velocities of a pass are combined: the plan, and what is the same at every step.

    `rescale` is diffusers' guidance_rescale, 0 is off.
    """

    steps: tuple[StepGuidance, ...]
    layers: int
    mode: str
    cfg_star: bool
    rescale: float


class GuidedTransformer:
    """The velocity of a step, (1,N,C), from an engine of the transformer.

    text: the prompts; rope: cos and sin, each (1,N,D/2); index (1,N): each token's distinct timestep. What
    does not change is given to the engine once; what depends on the batch and on the blocks that are
    perturbed, anew where they are others than in the step before.
    """

    def __init__(
        self,
        engine: Engine,
        text: Text,
        rope: tuple[Array, Array],
        index: NDArray[np.int64],
        guided: Guided,
    ) -> None:
        self._shared = engine.bind(rope_cos=rope[0], rope_sin=rope[1])
        self._text, self._index, self._guided = text, index, guided
        self._key: tuple[object, ...] = ()
        self._bound: BoundEngine | None = None

    def __call__(self, latents: Array, timesteps: Array, _index: NDArray[np.int64], number: int) -> Array:
        step = self._guided.steps[number]
        parts = guidance_plan.parts(step)
        repeated = {"latents": latents, "timesteps": timesteps}
        call = self._binding(step, parts)
        outputs = call(**{n: np.repeat(array, len(parts), axis=0) for n, array in repeated.items()})
        result = outputs["velocity"]
        check_finite(result, "transformer", f"step {number + 1} of {len(self._guided.steps)}")
        velocities = {part: result[i : i + 1] for i, part in enumerate(parts)}
        velocity = guidance_plan.combine_parts(velocities, step, self._guided.cfg_star)
        if "negative" in velocities:
            return guidance.diffusers_rescale(velocity, velocities["positive"], self._guided.rescale)
        return velocity

    def _binding(self, step: StepGuidance, parts: tuple[str, ...]) -> BoundEngine:
        key = (parts, step.skip_blocks if "perturbed" in parts else ())
        if self._bound is None or key != self._key:
            self._bound = None  # frees the old inputs before the new ones are uploaded
            self._bound, self._key = self._bind(step, parts), key
        return self._bound

    def _bind(self, step: StepGuidance, parts: tuple[str, ...]) -> BoundEngine:
        guided, rows = self._guided, self._text.rows(parts)
        return self._shared.bind(
            context=self._text.context[rows],
            context_mask=self._text.mask[rows],
            timestep_index=np.repeat(self._index, len(parts), axis=0),
            perturbation_mask=guidance_plan.perturbation_mask(guided.layers, parts, step, guided.mode),
        )
