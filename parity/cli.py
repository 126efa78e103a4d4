"""`ltx-parity`: do a bundle's engines compute what torch computes, and how fast?"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ltxrt.engines.cli_base import LtxrtGroup, ltxrt_command
from ltxrt.engines.errors import BundleError, InputError, MissingPackageError
from ltxrt.engines.progress import Progress
from ltxrt.engines.storage import locks
from ltxrt.engines.storage.files import atomic_write, make_folder
from ltxrt.engines.terminal import Job, job, mode_options, note, result, warn
from ltxrt.export.cli import source_options
from ltxrt.parity import calibrate
from ltxrt.parity.bench.cli import bench_command

if TYPE_CHECKING:
    from ltxrt.parity.check.results import Report
    from ltxrt.parity.check.run import Order

PATH = click.Path(path_type=Path)
SIZES = ("128x192x17", "192x128x33")


@ltxrt_command("ltx-parity", cls=LtxrtGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ltxrt")
def main() -> None:
    """Verify a bundle's engines against torch, and measure them."""


@main.command("check")
@click.option("--bundle", type=PATH, required=True, metavar="DIR", help="Made by ltx-export onnx.")
@click.option("--checkpoint", type=PATH, required=True, help="What the bundle was exported from.")
@source_options
@click.option("--model-version", metavar="NAME", help="Release, where the file does not tell.")
@click.option(
    "--reference", default="torch", show_default=True, help="torch (the traced modules) or diffusers."
)
@click.option("--component", "components", multiple=True, help="Compare only this; repeatable.")
@click.option("--precision", "precisions", multiple=True, help="Compare only this; repeatable.")
@click.option("--backend", "backends", multiple=True, help="Compare only this; repeatable.")
@click.option("--size", "sizes", multiple=True, default=SIZES, show_default=True, metavar="HxWxF")
@click.option(
    "--steps", type=click.IntRange(1, 100), default=4, show_default=True, help="Of each sampling run."
)
@click.option("--prompt", help="What the sampling runs show.")
@click.option(
    "--image", type=PATH, help="What the run with an image starts from.  [default: a drawn picture]"
)
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True)
@click.option("--bisect", is_flag=True, help="Name the first block and operator of a failing component.")
@click.option("--end-to-end", is_flag=True, help="Also the whole sampler against the reference.")
@click.option(
    "--save-inputs", type=PATH, metavar="DIR", help="Inputs and outputs for polygraphy's own command."
)
@click.option("--output", type=PATH, metavar="DIR", help="For the report.  [default: parity/ in the bundle]")
@click.option("--threads", type=click.IntRange(1), help="CPU threads of engines and reference.")
@mode_options
def check_command(bundle: Path, output: Path | None, bisect: bool, end_to_end: bool, **options: Any) -> None:
    """Compare every component, precision and backend with torch on inputs of real sampling runs.

    Exit status 0 if all passed, 1 if one failed or a component could not be compared at all.
    """
    from ltxrt.engines import verification

    with job() as progress:
        _refuse(bundle, options)
        progress(Progress("loading torch"))
        try:
            from ltxrt.parity.check import results
            from ltxrt.parity.check import run as _run  # noqa: F401  (what a package is missing for)
            from ltxrt.parity.report import render
        except ModuleNotFoundError as error:
            raise MissingPackageError(error.name or "torch", "export,parity") from error
        order = _order(bundle, options, progress)
        folder = output if output is not None else bundle / verification.REPORT.parent
        for flag, place in (("--output", folder), ("--save-inputs", options["save_inputs"])):
            _writable(flag, place, bundle)
        report = _checked(order, folder, bisect, end_to_end)
        with locks.alone(folder):  # what another check adds to the report meanwhile would be lost
            written = _with_earlier(report, folder)
            results.write(written, folder / verification.REPORT.name)
            with atomic_write(folder / "report.html") as temporary:
                temporary.write_text(render(written), encoding="utf-8")
    _summary(report, written, folder)
    if written.status != results.PASSED:
        raise click.exceptions.Exit(1)


def _checked(order: Order, folder: Path, bisect: bool, end_to_end: bool) -> Report:
    """The report on what was ordered; strips and videos are written to `folder`."""
    import dataclasses

    from ltxrt.engines.bundle import reading_bundle
    from ltxrt.parity.check import demands, results
    from ltxrt.parity.check import run as check

    with reading_bundle(order.bundle.root):
        report, feeds = check.run(order, note)
        if bisect:
            from ltxrt.parity.check import bisect as bisection

            report = dataclasses.replace(report, culprits=bisection.culprits(order, report, feeds, note))
        if end_to_end:
            from ltxrt.parity.check import end_to_end as sampler

            runs = sampler.run(order, folder, note)
            report = dataclasses.replace(report, end_to_end=runs, status=sampler.status(report.status, runs))
            unmet = demands.of_end_to_end(order.precisions, order.backends, runs)
            report = results.with_unmet(report, unmet)
    return report


main.add_command(bench_command)
main.add_command(calibrate.main)


def _refuse(bundle: Path, options: dict[str, Any]) -> None:
    """Raise for a bundle or a checkpoint that cannot be read, before torch is loaded."""
    from ltxrt.engines.bundle import read_bundle
    from ltxrt.export import families

    family = families.family(read_bundle(bundle).family)
    sources = {source.name: options[source.name] for source in family.SOURCES}
    family.open_checkpoint(options["checkpoint"], sources, options["model_version"], False)


def _writable(flag: str, folder: Path | None, bundle: Path) -> None:
    """Make the folder, before minutes of work rather than after; in the bundle no link is followed to it."""
    if folder is None:
        return
    try:
        if folder.absolute().is_relative_to(bundle.absolute()):
            make_folder(bundle, *folder.absolute().relative_to(bundle.absolute()).parts)
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK)
    except OSError:
        writable = False
    if not writable:
        raise InputError(f"{flag} {folder}: cannot be made or written to; give another folder")


def _with_earlier(report: Report, folder: Path) -> Report:
    """The report with what the last one in `folder` says of graphs that were not looked at now."""
    from ltxrt.engines import verification
    from ltxrt.parity.check import results

    try:
        before = results.read(folder / verification.REPORT.name)
    except BundleError:
        return report
    return results.merged(before, report)


def _order(bundle: Path, options: dict[str, Any], progress: Job) -> Order:
    import torch

    from ltxrt.engines.bundle import read_bundle
    from ltxrt.export import families
    from ltxrt.parity.check import inputs
    from ltxrt.parity.check.run import Order

    if options["threads"]:
        torch.set_num_threads(options["threads"])
    opened = read_bundle(bundle)
    family = families.family(opened.family)
    sources = {source.name: options[source.name] for source in family.SOURCES}
    checkpoint = family.open_checkpoint(options["checkpoint"], sources, options["model_version"])
    sizes = tuple(map(inputs.parse_size, options["sizes"]))
    plan = inputs.Plan(sizes, *(options[name] for name in ("steps", "prompt", "seed", "image")))
    chosen: dict[str, Any] = {name: options[name] for name in ("reference", "threads")}
    for name in ("components", "precisions", "backends"):
        chosen[name] = tuple(dict.fromkeys(options[name]))
    order = Order(opened, checkpoint, plan, save=options["save_inputs"], progress=progress, **chosen)
    for text, size in zip(options["sizes"], sizes):
        try:
            order.family.check_size(opened, size)
        except InputError as error:
            raise InputError(f"--size {text}: {error}") from error
    progress.expect(order.stages, f"check {opened.family}")
    return order


def _summary(now: Report, written: Report, folder: Path) -> None:
    """What was skipped and why, what was asked for and did not run, and the verdict with its counts."""
    from ltxrt.parity.check import results

    reasons: dict[str, list[str]] = {}
    for check in now.checks:
        if check.status == results.SKIPPED:
            reason = f"on {check.backend}: {check.problems[0]}"
            reasons.setdefault(reason, []).append(f"{check.component} {check.precision}")
    for run in now.end_to_end:
        if run.status == results.SKIPPED:
            reasons.setdefault(f"on {run.backend}: {run.problems[0]}", []).append(
                f"end to end {run.precision}"
            )
    for reason, names in reasons.items():
        note(f"skipped {', '.join(names)} {reason}")
    for sentence in written.unmet:
        warn(f"asked for, but did not run: {sentence}")
    line = f"{folder / 'report.html'}: {written.status}, {_counts(c.status for c in now.checks)}"
    if now.end_to_end:
        line += f"; end to end {_counts(run.status for run in now.end_to_end)}"
    kept = len(written.checks) - len(now.checks)
    result(line + (f"; {kept} rows kept from an earlier check" if kept else ""), _data(now, written, folder))


def _data(now: Report, written: Report, folder: Path) -> dict[str, Any]:
    """What `--json` prints; metrics of every call are in the report."""
    import dataclasses

    from ltxrt.engines import verification

    names = ("component", "output", "precision", "backend", "reference", "status", "problems", "seconds")
    runs = ("precision", "backend", "reference", "status", "psnr", "ssim", "problems")
    return {
        "status": written.status,
        "report": str(folder / verification.REPORT.name),
        "page": str(folder / "report.html"),
        "checks": [{name: getattr(check, name) for name in names} for check in now.checks],
        "end_to_end": [{name: getattr(run, name) for name in runs} for run in now.end_to_end],
        "culprits": [dataclasses.asdict(culprit) for culprit in now.culprits],
        "unmet": written.unmet,
        "kept": len(written.checks) - len(now.checks),
    }


def _counts(statuses: Iterable[str]) -> str:
    found = Counter(statuses)
    return ", ".join(f"{found[status]} {status}" for status in ("passed", "failed", "skipped"))


if __name__ == "__main__":
    main()
