"""What is verified on which inputs: feeds, and engines that record what a sampling run gives them.

The sampler of a family runs on the reference, so that one set of inputs serves every precision and backend,
those included that this machine has no kernels for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltxrt.engines.backend import Engine, Session
from ltxrt.engines.bundle import Bundle
from ltxrt.engines.errors import InputError, setting
from ltxrt.engines.progress import Report, unreported
from ltxrt.runtime.engine_pool import EnginePool

Load = Callable[[str], Session]
Size = tuple[int, int, int]  # height, width, frames in pixels


@dataclass(frozen=True)
class Plan:
    """What to run: sizes that the runs take in turn, steps (None: the preset's), prompt and seed.

    progress: told how many steps of the runs are done.
    """

    sizes: tuple[Size, ...]
    steps: int | None = 4
    prompt: str | None = None
    seed: int = 0
    image: Path | None = None
    progress: Report = unreported


@dataclass(frozen=True)
class Feed:
    """The inputs of one call, by the contract's names, and where it was made."""

    component: str
    case: str
    size: str
    inputs: dict[str, NDArray[Any]] = field(repr=False)
    step: int | None = None
    timestep: float | None = None

    @property
    def batch(self) -> int:
        return int(next(iter(self.inputs.values())).shape[0])


@dataclass(frozen=True)
class Sampled:
    """A run of the whole sampler: latents after each step, and the frames (F,H,W,3) uint8."""

    latents: list[NDArray[np.float32]]
    frames: NDArray[np.uint8]


def parse_size(text: str) -> Size:
    """HEIGHTxWIDTHxFRAMES. Raises InputError for anything else."""
    parts = text.lower().split("x")
    if len(parts) != 3 or not all(part.isascii() and part.isdigit() and len(part) < 6 for part in parts):
        raise InputError(f"{setting('size')} {text!r:.60}: must be HEIGHTxWIDTHxFRAMES, as in 128x192x17")
    height, width, frames = map(int, parts)
    return height, width, frames


class HostSession:
    """What sessions (`ltxrt.engines.backend.Session`) on the host share: a bound input is a copy."""

    def upload(self, name: str, array: np.ndarray) -> np.ndarray:
        return array.copy()

    def interrupt(self) -> None:
        """A run of the reference is not ended: nobody waits for another."""

    def resume(self) -> None:
        """There is nothing to take back."""


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
        super().__init__(bundle, backend="onnxruntime")  # which loads none of them
        self.load_session = load

    def precision(self, component: str) -> str:
        if component not in self.bundle.components:
            raise InputError(
                f"{self.bundle.root}: has no {component}; export it, or name another {setting('component')}"
            )
        return next(iter(self.bundle.components[component]))

    def files(self, component: str) -> list[Path]:
        return []

    def load(self, component: str, calls: int) -> Engine:
        return Engine(self.bundle.contract(component), self.load_session(component))


class RecordingEngines(ReferenceEngines):
    """Engines that keep every component's inputs, in the contract's order of names."""

    def __init__(self, bundle: Bundle, load: Load, case: str, size: Size) -> None:
        super().__init__(bundle, load)
        self._case, self._size, self.feeds = case, "x".join(map(str, size)), list[Feed]()

    def load(self, component: str, calls: int) -> Engine:
        recorder = Recorder(self.load_session(component), lambda inputs: self.keep(component, inputs))
        return Engine(self.bundle.contract(component), recorder)

    def keep(self, component: str, inputs: Mapping[str, NDArray[Any]]) -> None:
        """Add the inputs of a call, which has not necessarily been made."""
        ordered = {tensor.name: inputs[tensor.name] for tensor in self.bundle.contract(component).inputs}
        self.feeds.append(Feed(component, self._case, self._size, ordered))
