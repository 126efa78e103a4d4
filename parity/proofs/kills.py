"""`python -m ltxrt.parity.proofs.kills`: exports that are killed, and what they leave behind.

A small random component is exported again and again into one bundle, beside another one, each time in a
child process that is killed: with SIGKILL and SIGTERM in every stage, before and after every renaming, and
then at random times. After each, the bundle must be valid, perhaps without the component that was being
replaced; after SIGTERM no temporary file may be there; and the next undisturbed export removes what SIGKILL
left.
"""

from __future__ import annotations

import dataclasses
import os
import random
import shutil
import signal
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import torch

from ltxrt.engines.bundle import read_bundle, verify
from ltxrt.engines.cli_base import ltxrt_command
from ltxrt.engines.errors import LtxrtError
from ltxrt.engines.progress import Progress
from ltxrt.engines.storage import integrity
from ltxrt.export import write as build
from ltxrt.export.graph.trace import Traced, trace
from ltxrt.export.ltxv.config import UpsamplerConfig
from ltxrt.export.ltxv.open import open_checkpoint
from ltxrt.export.write import Plan, export_bundle
from ltxrt.parity.synthetic import checkpoint as synthetic
from ltxrt.parity.synthetic import models as synthetic_models

VERSION = "0.9.5"
COMPONENT, OTHER = "latent_upsampler", "temporal_upsampler"
STAGES = ("tracing", "writing weights", "half-way", "checking")
RENAMES = 6  # of a component that replaces another: manifest twice, weights, their names, graph, manifest
SIGNALS = {name: getattr(signal, name) for name in ("SIGKILL", "SIGTERM") if hasattr(signal, name)}


@dataclasses.dataclass(frozen=True)
class Moment:
    """When a child kills itself: in a stage, or before or after a renaming; and by which signal."""

    where: str  # "tracing", "before 3", "after 3"
    signal: str

    def __str__(self) -> str:
        return f"{self.signal} {self.where}"


def moments() -> list[Moment]:
    """Every stage and both sides of every renaming, by both signals."""
    sides = [f"{side} {number}" for number in range(1, RENAMES + 1) for side in ("before", "after")]
    return [Moment(where, name) for where in (*STAGES, *sides) for name in SIGNALS]


class Killed:
    """An export's report that kills its own process at a moment."""

    def __init__(self, moment: Moment | None) -> None:
        self.moment = moment

    def reached(self, where: str) -> None:
        if self.moment is not None and where == self.moment.where:
            signal.raise_signal(SIGNALS[self.moment.signal])

    def __call__(self, progress: Progress) -> None:
        if not progress.done:
            self.reached(progress.stage.partition(": ")[2])
        elif progress.total is not None and 2 * progress.done > progress.total:
            self.reached("half-way")

    def watch_renaming(self) -> None:
        """From now on, for this process: count what `Path.replace` renames."""
        replace, count = Path.replace, iter(range(1, 1000))

        def counted(path: Path, target: Any) -> Path:
            number = next(count)
            self.reached(f"before {number}")
            renamed = replace(path, target)
            self.reached(f"after {number}")
            return renamed

        Path.replace = counted  # type: ignore[method-assign, assignment]


def keep_trace() -> None:
    """Trace the next component twice, and give the second graph to every forked child: what is killed is the
    writing, and tracing takes most of the time."""
    kept: list[Traced] = []
    own = os.getpid()

    def traced(*arguments: Any) -> Traced:
        if os.getpid() != own:
            return kept[0]
        kept[:] = [trace(*arguments)]
        return trace(*arguments)

    vars(build)["trace"] = traced


def start(plan: Plan, moment: Moment | None) -> int:
    """Begin an export in a child process; its id."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        killed = Killed(moment)
        killed.watch_renaming()
        export_bundle(plan, killed)  # SIGTERM is handled as by the command around
        status = 0
    except KeyboardInterrupt:
        status = 128 + signal.SIGTERM
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def ended(child: int) -> int:
    """Wait for a child: its exit status, or 128 plus the number of the signal that killed it."""
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code if code >= 0 else 128 - code


def left(folder: Path) -> set[str]:
    """The temporary files in a bundle."""
    return {p.relative_to(folder).as_posix() for p in folder.rglob(".*") if p.name != integrity.NOTES}


def check(folder: Path, what: object) -> bool:
    """Whether the bundle has the component; LtxrtError where it is invalid or lacks the other one."""
    try:
        bundle = read_bundle(folder)
        verify(bundle)
    except LtxrtError as error:
        raise LtxrtError(f"{what}: left an invalid bundle: {error}") from error
    if OTHER not in bundle.components:
        raise LtxrtError(f"{what}: lost the other component")
    return COMPONENT in bundle.components


def at_moments(plan: Plan, chosen: Sequence[Moment]) -> Iterator[str]:
    """Kill an export at each moment and check what it leaves; a line to print after each."""
    whole = plan.folder.with_name("whole")
    shutil.copytree(plan.folder, whole)
    for moment in chosen:
        shutil.copytree(whole, plan.folder, dirs_exist_ok=True)  # what was left temporarily stays
        before = left(plan.folder)
        status = ended(start(plan, moment))
        if status != 128 + SIGNALS[moment.signal]:
            raise LtxrtError(
                f"{moment}: ended with status {status}; the moment was not reached, or it failed"
            )
        there, new = check(plan.folder, moment), left(plan.folder) - before
        if new and moment.signal == "SIGTERM":
            raise LtxrtError(f"{moment}: left {', '.join(sorted(new))}")
        yield f"{moment}: {'with' if there else 'without'} the component, {len(new)} temporary files"


def at_random(plan: Plan, runs: int, seed: int) -> Iterator[str]:
    """Kill exports after times up to that of a whole one."""
    draw, began = random.Random(seed), time.monotonic()
    finish(plan)
    longest = time.monotonic() - began
    for number in range(runs):
        name = draw.choice(list(SIGNALS))
        before, child = left(plan.folder), start(plan, None)
        time.sleep(draw.uniform(0, longest))
        os.kill(child, SIGNALS[name])
        status = ended(child)
        check(plan.folder, f"run {number}, {name}")
        if name == "SIGTERM" and left(plan.folder) - before:
            raise LtxrtError(f"run {number}, {name}: left temporary files")
        yield f"run {number}: {name}, exit status {status}"


def finish(plan: Plan) -> None:
    """An undisturbed export; LtxrtError where it fails or leaves temporary files."""
    status = ended(start(plan, None))
    if status or not check(plan.folder, "an undisturbed export"):
        raise LtxrtError(f"an undisturbed export ended with status {status}")
    if left(plan.folder):
        raise LtxrtError(f"temporary files were not removed: {', '.join(sorted(left(plan.folder)))}")


def plans(folder: Path) -> dict[str, Plan]:
    """Component → its export into `folder`/bundle, from small random checkpoints that are made here."""
    models = synthetic_models.tiny(VERSION)
    synthetic.write_official(folder / "model.safetensors", models.transformer, models.vae, models.scheduler)
    files = {COMPONENT: folder / "spatial.safetensors", OTHER: folder / "temporal.safetensors"}
    for name, file in files.items():
        synthetic.write_upsampler(file, UpsamplerConfig(16, 64, 2, temporal=name == OTHER))
    checkpoint = open_checkpoint(
        folder / "model.safetensors", version=VERSION, upsamplers=tuple(files.values())
    )
    return {name: Plan(checkpoint, folder / "bundle", {name: "fp32"}) for name in (OTHER, COMPONENT)}


@ltxrt_command("kills")
@click.option("--runs", type=click.IntRange(0), default=100, show_default=True, help="At random times.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--moment", "wanted", multiple=True, help="Only these, as in 'SIGKILL before 3'; repeatable.")
def main(runs: int, seed: int, wanted: tuple[str, ...]) -> None:
    """Kill exports and check what they leave; exit status 1 for a damaged bundle or a leftover file."""
    chosen = [moment for moment in moments() if not wanted or str(moment) in wanted]
    torch.set_num_threads(1)  # threads would not be there in a forked child
    with tempfile.TemporaryDirectory() as folder:
        both = plans(Path(folder))
        for plan in both.values():
            keep_trace()
            export_bundle(plan, Killed(None))
        for line in at_moments(both[COMPONENT], chosen):
            click.echo(line)
        for line in at_random(both[COMPONENT], runs, seed) if runs else ():
            click.echo(line)
        finish(both[COMPONENT])
    click.echo(
        f"{len(chosen)} kills at named moments, {runs} at random times: no bundle damaged, no file left"
    )


if __name__ == "__main__":
    main()
