"""The inputs that a real sampling run makes, recorded where they enter each component.

The sampler runs on the reference, so that one set of inputs serves every precision and backend, those
included that this machine has no kernels for. Three runs give the transformer batches of 1, 2 and 3, with an
image and without, at every timestep of a short schedule.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltxrt.engines.backend import Engine, Session
from ltxrt.engines.bundle import Bundle
from ltxrt.engines.errors import InputError
from ltxrt.engines.families.ltxv.facts import VaeFacts
from ltxrt.parity.check.sessions import HostSession
from ltxrt.runtime.engine_pool import EnginePool
from ltxrt.runtime.ltxv.pipeline import Pipeline
from ltxrt.runtime.request.request import Request
from ltxrt.runtime.sampling.latents import VideoShape

PROMPT = "waves break on a rocky shore at sunset, the camera drifts to the left"
UPSAMPLERS = ("latent_upsampler", "temporal_upsampler")
Load = Callable[[str], Session]


@dataclass(frozen=True)
class Case:
    """A sampling run: its name, what its request says beside the size, whether an image is given."""

    name: str
    request: Mapping[str, Any]
    image: bool = False
    perturbed: bool = False


_NO_STG: dict[str, Any] = {"stg_scale": (0.0,), "rescaling_scale": (1.0,), "skip_block_list": ((),)}
CASES = (
    Case("i2v, batch 2", {"guidance_scale": (3.0,), **_NO_STG}, image=True),
    Case(
        "t2v, batch 3",
        {
            "guidance_scale": (3.0,),
            "stg_scale": (1.0,),
            "rescaling_scale": (0.7,),
            "skip_block_list": ((1,),),
        },
        perturbed=True,
    ),
    Case("t2v, batch 1", {"guidance_scale": (1.0,), **_NO_STG}),
)


@dataclass(frozen=True)
class Plan:
    """What to run: sizes that the cases take in turn, steps (None: the preset's), prompt and seed."""

    sizes: tuple[tuple[int, int, int], ...]
    steps: int | None = 4
    prompt: str = PROMPT
    seed: int = 0
    image: Path | None = None


@dataclass(frozen=True)
class Feed:
    """The inputs of one call, by the contract's names, and where it was made."""

    component: str
    case: str
    size: str
    step: int | None
    inputs: dict[str, NDArray[Any]] = field(repr=False)

    @property
    def batch(self) -> int:
        return int(next(iter(self.inputs.values())).shape[0])

    @property
    def timestep(self) -> float | None:
        return float(self.inputs["timesteps"].max()) if self.component == "transformer" else None


def parse_size(text: str, vae: VaeFacts | None) -> tuple[int, int, int]:
    """HEIGHTxWIDTHxFRAMES that `vae` can hold. Raises InputError for anything else."""
    parts = text.lower().split("x")
    if len(parts) != 3 or not all(part.isascii() and part.isdigit() and len(part) < 6 for part in parts):
        raise InputError(f"--size {text!r}: must be HEIGHTxWIDTHxFRAMES, as in 128x192x17")
    height, width, frames = map(int, parts)
    if vae is not None:
        try:
            VideoShape(frames, height, width).check(vae)
        except InputError as error:
            raise InputError(f"--size {text}: {str(error).removeprefix('--')}") from error
    return height, width, frames


def record(bundle: Bundle, load: Load, plan: Plan, perturbed: bool = True) -> list[Feed]:
    """Run the sampler on the sessions that `load` gives, and keep the inputs of every call.

    `perturbed` False leaves out spatiotemporal guidance, which diffusers does not have for this model.
    """
    feeds: list[Feed] = []
    cases = [case for case in CASES if perturbed or not case.perturbed]
    for number in range(max(len(cases), len(plan.sizes))):  # every size that was asked for has its turn
        case, size = cases[number % len(cases)], plan.sizes[number % len(plan.sizes)]
        engines = RecordingEngines(bundle, load, case.name, "x".join(map(str, size)))
        pipeline = Pipeline(bundle, engines=engines)
        stream = pipeline.stream(request(pipeline, plan, case, size))
        frames = np.concatenate(list(stream.frames))
        if not case.image:
            engines.encode_again(frames)
        engines.upsample_again()
        feeds += engines.feeds
    return feeds


def request(pipeline: Pipeline, plan: Plan, case: Case, size: tuple[int, int, int]) -> Request:
    """The request of a case at a size; a preset whose timesteps are given keeps them."""
    presets = pipeline.bundle.presets
    preset = "single-pass" if "single-pass" in presets else "default"
    steps = None if presets[preset].passes[0].timesteps else plan.steps
    image = plan.image if plan.image is not None else picture(size[0], size[1])
    height, width, frames = size
    return Request(
        plan.prompt,
        preset=preset,
        seed=plan.seed,
        height=height,
        width=width,
        num_frames=frames,
        steps=steps,
        guidance_timesteps=(),
        image=image if case.image else None,
        **case.request,
    )


def picture(height: int, width: int) -> NDArray[np.float32]:
    """Pixels (3, height, width) in −1..1 with edges, slopes and texture: something for an encoder to see."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    waves = np.sin(x / 7 + y / 5)
    disc = ((x - 0.6 * width) ** 2 + (y - 0.4 * height) ** 2 < (0.2 * height) ** 2).astype(np.float32)
    red = 2 * y / height - 1
    green = 0.6 * waves
    blue = 1 - 2 * x / width
    return np.stack([red, green, blue]).clip(-1, 1) * (1 - disc) + disc * 0.9


class Recorder(HostSession):
    """A session that keeps what it is given; what was bound is part of every call."""

    def __init__(self, session: Session, keep: Callable[[dict[str, NDArray[Any]]], None]) -> None:
        self._session, self._keep = session, keep

    def run(self, feeds: Mapping[str, Any]) -> dict[str, np.ndarray]:
        self._keep({name: np.asarray(array).copy() for name, array in feeds.items()})
        return self._session.run(feeds)

    def close(self) -> None:
        self._session.close()


class ReferenceEngines(EnginePool):
    """Sessions of one's own in place of engines; they read a checkpoint, not the bundle's files."""

    def __init__(self, bundle: Bundle, load: Load) -> None:
        super().__init__(bundle)
        self.load_session = load

    def precision(self, component: str) -> str:
        if component not in self.bundle.components:
            raise InputError(
                f"{self.bundle.root}: has no {component}; export it, or name another --component"
            )
        return next(iter(self.bundle.components[component]))

    def files(self, component: str) -> list[Path]:
        return []

    def load(self, component: str, calls: int) -> Engine:
        return Engine(self.bundle.contract(component), self.load_session(component))


class RecordingEngines(ReferenceEngines):
    """Engines that keep every component's inputs, in the contract's order of names."""

    def __init__(self, bundle: Bundle, load: Load, case: str, size: str) -> None:
        super().__init__(bundle, load)
        self._case, self._size, self.feeds = case, size, list[Feed]()

    def load(self, component: str, calls: int) -> Engine:
        recorder = Recorder(self.load_session(component), lambda inputs: self._keep(component, inputs))
        return Engine(self.bundle.contract(component), recorder)

    def _keep(self, component: str, inputs: dict[str, NDArray[Any]]) -> None:
        steps = sum(feed.component == component for feed in self.feeds)
        step = steps + 1 if component == "transformer" else None
        ordered = {t.name: inputs[t.name] for t in self.bundle.contract(component).inputs}
        self.feeds.append(Feed(component, self._case, self._size, step, ordered))

    def encode_again(self, frames: NDArray[np.uint8]) -> None:
        """The video that was made is a clip for the encoder; a run with an image shows it one frame only."""
        if "vae_encoder" in self.bundle.components:
            pixels = (frames.astype(np.float32) / 127.5 - 1).transpose(3, 0, 1, 2)[None]
            self._keep("vae_encoder", {"pixels": np.ascontiguousarray(pixels)})

    def upsample_again(self) -> None:
        """The latents that went to the decoder are what an upsampler would get."""
        latents = [feed.inputs["latents"] for feed in self.feeds if feed.component == "vae_decoder"]
        for component in UPSAMPLERS:
            if component in self.bundle.components and latents:
                self._keep(component, {"latents": latents[-1]})


def of(feeds: Sequence[Feed], component: str) -> list[Feed]:
    return [feed for feed in feeds if feed.component == component]
