"""What the stages of training share: seeds by step, averaged weights, saving and resuming, a log."""

from __future__ import annotations

import math
import sys
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

T = TypeVar("T")
_AHEAD = 4  # pieces of data that each worker may be ahead of the training


def prefetch(make: Callable[[int], T], numbers: range, workers: int) -> Iterator[T]:
    """`make(number)` of every number, in order; made ahead by so many processes, or here where there are
    none.

    What is made depends on the number alone, so the number of workers changes nothing.
    """
    if workers < 1:
        yield from map(make, numbers)
        return
    with ProcessPoolExecutor(workers) as pool:
        waiting: deque[Future[T]] = deque()
        for number in numbers:
            waiting.append(pool.submit(make, number))
            if len(waiting) >= workers * _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


class Ema:
    """An exponential average of a module's parameters, which is what is kept."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self.values = {name: p.detach().clone() for name, p in module.named_parameters()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for name, parameter in module.named_parameters():
            self.values[name].lerp_(parameter, 1 - decay)

    @torch.no_grad()
    def copy_to(self, module: nn.Module) -> None:
        for name, parameter in module.named_parameters():
            parameter.copy_(self.values[name])

    @contextmanager
    def used(self, module: nn.Module) -> Iterator[None]:
        """While the block runs, the module has the averaged weights."""
        own = {name: p.detach().clone() for name, p in module.named_parameters()}
        self.copy_to(module)
        try:
            yield
        finally:
            with torch.no_grad():
                for name, parameter in module.named_parameters():
                    parameter.copy_(own[name])


class Job:
    """A training in pieces: its folder of states and logs, its device, how often it saves, its random
    numbers.

    Every step draws from generators seeded by the step, so a run that was interrupted ends as one that was
    not.
    """

    def __init__(
        self, folder: Path, device: str = "cpu", workers: int = 0, seed: int = 0, save_every: int = 500
    ) -> None:
        self.folder, self.device, self.workers = folder, torch.device(device), workers
        self.seed, self.save_every = seed, save_every
        folder.mkdir(parents=True, exist_ok=True)
        self._notes: dict[str, list[float]] = defaultdict(list)
        self._since = time.monotonic()

    def random(self, step: int) -> tuple[np.random.Generator, torch.Generator]:
        number = self.number(step)
        return np.random.default_rng(number), torch.Generator().manual_seed(number)

    def number(self, step: int) -> int:
        """The seed of a step's random numbers."""
        return self.seed * 1_000_003 + step

    def rate(self, rate: float, step: int, steps: int, warm: int = 300) -> float:
        """Linear warm-up, then a cosine down to a twentieth."""
        if step < warm:
            return rate * (step + 1) / warm
        return rate * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(steps - warm, 1))))

    def due(self, step: int, steps: int) -> bool:
        return (step + 1) % self.save_every == 0 or step + 1 == steps

    def save(
        self, name: str, step: int, module: nn.Module, optimiser: torch.optim.Optimizer, ema: Ema
    ) -> None:
        state = {
            "step": step, "module": module.state_dict(), "optimiser": optimiser.state_dict(),
            "ema": ema.values, "ema_steps": ema.steps,
        }  # fmt: skip
        temporary = self.folder / f".{name}.part"
        torch.save(state, temporary)
        temporary.replace(self.folder / f"{name}.state")

    def resume(self, name: str, module: nn.Module, optimiser: torch.optim.Optimizer, ema: Ema) -> int:
        """Load what was saved, if anything was; the step to go on with."""
        path = self.folder / f"{name}.state"
        if not path.exists():
            return 0
        state: dict[str, Any] = torch.load(path, weights_only=True, map_location=self.device)
        module.load_state_dict(state["module"])
        optimiser.load_state_dict(state["optimiser"])
        ema.values, ema.steps = state["ema"], state["ema_steps"]
        return int(state["step"])

    def note(self, name: str, step: int, **values: float) -> None:
        """Collect figures, and log their means now and then."""
        for key, value in values.items():
            self._notes[key].append(value)
        if (step + 1) % 100 == 0:
            means = "  ".join(f"{key} {np.mean(found):.5f}" for key, found in self._notes.items())
            now = time.monotonic()
            self.log(name, step + 1, f"{means}  {(now - self._since) * 10:.0f} ms/step")
            self._since = now
            self._notes.clear()

    def log(self, name: str, step: int, text: str) -> None:
        line = f"{name} {step}: {text}"
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
        with (self.folder / "log.txt").open("a") as file:
            file.write(line + "\n")


def psnr(reference: Tensor, found: Tensor) -> float:
    """Decibels of pixels in −1..1."""
    return float(10 * torch.log10(4 / (reference - found).square().mean().clamp(min=1e-10)))
