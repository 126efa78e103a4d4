"""About how long the stages of a planned run take, before anything has been measured.

Multiplications and additions from the plan's tokens and the weights' sizes, at rates of the order of
magnitude that processors have. What is right is how the numbers follow the size of the work: `terminal.job`
and whoever reads `ltxrt.engines.storage.times` correct them by what was measured on the machine.
"""

from __future__ import annotations

import hashlib
import os

from ltxrt.engines.host import cpu_name
from ltxrt.engines.precision import WEIGHT_BYTES
from ltxrt.engines.verification import identity
from ltxrt.runtime.engine_pool import Engines
from ltxrt.runtime.ltxv.plan import PassPlan, Plan
from ltxrt.runtime.ltxv.results import stage_name

_LOADED = 1e9  # bytes of weights per second
_CORE, _GPU = 2e10, 5e13  # multiplications and additions per second
_PER_ELEMENT = 6000  # those of an autoencoder, per element of its activations at their peak
_START = 0.2  # seconds, of any stage


def expected_seconds(plan: Plan, engines: Engines) -> dict[str, float]:
    """Every stage of a run in order, by its name in progress, with about how many seconds it takes."""
    work, count = _Work(plan, engines), len(plan.passes)
    found = {"text encoder": work.text()}
    if plan.settings.request.input_video is not None:
        found["image encoder"] = work.image("vae_encoder", plan.passes[0].shape.tokens)
    for number, one in enumerate(plan.passes, 1):
        if number > 1:
            found["latent upsampler"] = work.text("latent_upsampler")
        if plan.checked.items:
            cells = sum(shape.tokens for shape in plan.encoded(number - 1))
            found[stage_name("image encoder", number, count)] = work.image("vae_encoder", cells)
        found[stage_name("transformer", number, count)] = work.steps(one)
    found["image decoder"] = work.image("vae_decoder", plan.passes[-1].shape.tokens)
    return found


def timing_key(plan: Plan, engines: Engines) -> str:
    """What the times of a run depend on beside its size: graphs, backend, threads and processor."""
    graphs = [identity(engines.bundle.components[name][p]) for name, p in plan.precisions.items()]
    parts = ["ltx-run", engines.backend, str(engines.threads), cpu_name(), *sorted(graphs)]
    return f"ltx-run {engines.backend} {hashlib.sha256(' '.join(parts).encode()).hexdigest()[:32]}"


class _Work:
    def __init__(self, plan: Plan, engines: Engines) -> None:
        self._plan, self._bundle = plan, engines.bundle
        cores = engines.threads or os.cpu_count() or 1
        self._rate = _CORE * cores if engines.backend == "onnxruntime" else _GPU

    def _bytes(self, component: str) -> int:
        graph = self._bundle.components[component][self._plan.precisions[component]]
        return sum(record.bytes for record in (graph.file, *graph.data))

    def _loaded(self, component: str) -> float:
        return _START + self._bytes(component) / _LOADED

    def _weights(self, component: str) -> float:
        return self._bytes(component) / WEIGHT_BYTES[self._plan.precisions[component]]

    def text(self, component: str = "text_encoder") -> float:
        tokens = self._plan.settings.preset.max_tokens
        return self._loaded(component) + 2 * self._weights(component) * tokens / self._rate

    def steps(self, one: PassPlan) -> float:
        facts, tokens = self._plan.model.transformer, one.shape.tokens + one.own_tokens
        forward = 2 * self._weights("transformer") * tokens + 4 * facts.layers * tokens**2 * facts.width
        forwards = sum(len(step.branches) for step in one.guidance)
        return self._loaded("transformer") + forward * forwards / self._rate

    def image(self, component: str, cells: int) -> float:
        memory = self._bundle.components[component][self._plan.precisions[component]].memory
        elements = 0.0 if memory is None else memory.bytes_per_cell * cells / 4
        return self._loaded(component) + _PER_ELEMENT * elements / self._rate
