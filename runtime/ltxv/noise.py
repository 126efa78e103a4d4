"""A request's random numbers: which generator, and which draws share one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from ltxrt.runtime.ltxv.settings import Settings
from ltxrt.runtime.noise.cpu import Generator, Noise, TorchCpuGenerator
from ltxrt.runtime.noise.cuda import TorchCudaGenerator
from ltxrt.runtime.request.request import Request


@dataclass(frozen=True)
class NoiseSources:
    """Where random numbers come from: for the start of a pass, for given images, and for everything else."""

    start: Noise
    first: Noise
    later: Generator


def noise_sources(settings: Settings) -> NoiseSources:
    """The request's seed, at its beginning."""
    first = _generator(settings.request)
    later = first if settings.reference.one_generator else _generator(settings.request)
    dtype = settings.request.noise_dtype
    return NoiseSources(lambda shape: first.randn(shape, dtype), first.randn, later)


def _generator(request: Request) -> Generator:
    seed = cast(int, request.seed)  # a request draws one where none was given
    if request.gpu is not None and request.generator == "cuda":
        return TorchCudaGenerator(seed, request.gpu)
    return TorchCpuGenerator(seed)
