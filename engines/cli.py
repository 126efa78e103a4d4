"""The commands `ltx-export build-engines` and `ltx-export engines …`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ltxrt.engines.cli_base import LtxrtGroup, ltxrt_command
from ltxrt.engines.description import file_size
from ltxrt.engines.errors import InputError
from ltxrt.engines.machine.names import named
from ltxrt.engines.precision import parse as parse_precisions
from ltxrt.engines.progress import Progress, Report
from ltxrt.engines.terminal import job, mode_options, result

if TYPE_CHECKING:
    from ltxrt.engines.bundle import Bundle
    from ltxrt.engines.tensorrt.cache import BuildOrder, Found
    from ltxrt.engines.tensorrt.profiles import Profile

_BACKENDS = ("trt", "rtx", "tensorrt", "tensorrt_rtx")
_SHOWN = ("component", "precision", "backend", "backend_version", "target", "bytes", "options", "attentions")
_BUILT_PER_SECOND = 50e6  # bytes of weights, about

BUNDLE = click.option(
    "--bundle",
    type=click.Path(path_type=Path),
    required=True,
    metavar="DIR",
    help="The bundle's folder, made by ltx-export onnx.",
)


@ltxrt_command("build-engines")
@BUNDLE
@click.option(
    "--backend",
    shell_complete=lambda _context, _parameter, begun: [n for n in _BACKENDS if n.startswith(begun)],
    help="tensorrt (trt) or tensorrt_rtx (rtx).  [default: the one that is installed, or tensorrt]",
)
@click.option(
    "--target",
    metavar="SM,…",
    help="For tensorrt_rtx: sm80, sm86, sm89, sm120, sm121. tensorrt builds for this machine's GPU.",
)
@click.option(
    "--profile",
    "profiles",
    multiple=True,
    required=True,
    metavar="HxWxF",
    help="512x768x97, or ranges 256..704x256..1216x9..161; repeatable, narrow ones are faster.",
)
@click.option("--component", "chosen", multiple=True, help="Build only this; repeatable. Default: all.")
@click.option(
    "--precision", metavar="P | COMPONENT=P,…", help="The precision to build, if the bundle has several."
)
@click.option(
    "--extra-frames",
    type=int,
    default=4,
    show_default=True,
    help="Latent frames of conditions, for their tokens.",
)
@click.option("--max-tokens", type=int, default=256, show_default=True, help="Tokens of the longest prompt.")
@click.option(
    "--optimisation-level", type=click.IntRange(0, 5), help="tensorrt only: effort spent on kernels."
)
@click.option("--weight-streaming", is_flag=True, help="Let the runtime keep weights in host memory.")
@click.option("--strip", is_flag=True, help="tensorrt only: omit the weights; loading reads the graph's.")
@mode_options
def build_command(
    bundle: Path,
    backend: str | None,
    target: str | None,
    profiles: tuple[str, ...],
    chosen: tuple[str, ...],
    **options: Any,
) -> None:
    """Compile a bundle's graphs to engines.

    Once for each target and component; existing engines that fit are kept. tensorrt_rtx builds without a GPU.
    """
    from ltxrt.engines.bundle import reading_bundle

    with reading_bundle(bundle) as opened:
        _build(opened, backend, target, profiles, chosen, options)


def _build(
    opened: Bundle,
    backend: str | None,
    target: str | None,
    profiles: tuple[str, ...],
    chosen: tuple[str, ...],
    options: dict[str, Any],
) -> None:
    from ltxrt.engines.tensorrt import build as trt
    from ltxrt.engines.tensorrt import cache

    if backend is None:
        backend = next((name for name, there in trt.installed().items() if there), "tensorrt")
    flavour, backend = trt.flavour_of(backend), named(backend)
    targets = _targets(flavour, backend, target)
    if flavour.targets is not None and options["optimisation_level"] is not None:
        raise InputError(f"--optimisation-level: {backend} measures no kernels while building; leave it out")
    if flavour.targets is not None and options["strip"]:
        raise InputError(f"--strip: {backend} strips engines only where a GPU is; leave it out")
    parsed = _profiles(opened, profiles, options["max_tokens"], options["extra_frames"])
    names = _components(opened, chosen)
    precisions = {name: _precision(opened, name, options["precision"]) for name in names}
    for one in targets:
        for name in names:
            trt.check_target(backend, one, precisions[name])
    built = trt.BuildOptions(options["optimisation_level"], options["weight_streaming"], options["strip"])
    orders = [
        cache.BuildOrder(name, precisions[name], backend, one, parsed, built)
        for one in targets
        for name in names
    ]
    lines, data = [], []
    with job() as report:
        report.expect({order.stage: _seconds(opened, order) for order in orders}, f"build {backend}")
        for order in orders:
            start = time.monotonic()
            found = cache.build(opened, order, report)
            seconds = time.monotonic() - start
            lines.append(f"{_line(opened, found)}  {seconds:.1f} s")
            data.append({**_data(opened, found), "seconds": round(seconds, 3)})
    result("\n".join(lines), {"engines": data})


def _seconds(opened: Bundle, order: BuildOrder) -> float:
    """About how long a build takes: most of it grows with the weights."""
    graph = opened.components[order.component][order.precision]
    return 5 + sum(file.bytes for file in (graph.file, *graph.data)) / _BUILT_PER_SECOND


@ltxrt_command("verify")
@BUNDLE
@mode_options
def verify_bundle_command(bundle: Path) -> None:
    """Hash every file of a bundle.

    Graphs, weights, tokenizer and engines.
    Exit status 1 if a file differs from its record or an engine is stale; 2 if one is missing or truncated.
    """
    from ltxrt.engines.bundle import read_bundle
    from ltxrt.engines.errors import BundleError
    from ltxrt.engines.storage import integrity

    with job() as report:
        opened = read_bundle(bundle)
        records = list(dict.fromkeys(opened.files()))
        total, done = sum(record.bytes for record in records), 0
        damaged: dict[str, str] = {}
        report(Progress("hashing the bundle", 0, total, "byte"))
        for record in records:
            before = done

            def hashed(count: int, before: int = before) -> None:
                report(Progress("hashing the bundle", before + count, total, "byte"))

            try:
                integrity.check(opened.root, (record,), afresh=True, hashed=hashed)
            except BundleError as error:
                damaged[record.path] = str(error)
            done += record.bytes
        engines = _engines(opened, True, report)
    lines = [*damaged.values(), f"{len(records) - len(damaged)} of {len(records)} files are as recorded"]
    data = {"files": len(records), "damaged": damaged, "engines": [_data(opened, one) for one in engines]}
    result("\n".join([*lines, *(_line(opened, one) for one in engines)]), data)
    if damaged or any(found.problem for found in engines):
        raise click.exceptions.Exit(1)


@click.group("engines", cls=LtxrtGroup)
def engines_group() -> None:
    """List, verify, inspect and delete the engines of a bundle."""


@engines_group.command("list")
@BUNDLE
@mode_options
def list_command(bundle: Path) -> None:
    """List engines with their purpose, and the reason if one would not load."""
    _show(bundle, hashed=False)


@engines_group.command("verify")
@BUNDLE
@mode_options
def verify_command(bundle: Path) -> None:
    """Like list, but hashes every file; exit status 1 if an engine is stale or damaged."""
    if any(found.problem for found in _show(bundle, hashed=True)):
        raise click.exceptions.Exit(1)


@engines_group.command("inspect")
@BUNDLE
@click.option("--component", "chosen", multiple=True, help="Describe only this; repeatable. Default: all.")
@mode_options
def inspect_command(bundle: Path, chosen: tuple[str, ...]) -> None:
    """Describe engines: layers by type and precision, fused attention, memory per profile.

    With a GPU, also the layers of the built engine.
    """
    from ltxrt.engines.bundle import read_bundle
    from ltxrt.engines.tensorrt import inspect as inspection

    with job() as report:
        opened = read_bundle(bundle)
        names = _components(opened, chosen)
        everything = _engines(opened, False, report)
        shown = [f for f in everything if f.record is None or f.record.component in names]
        described = [(one, list(inspection.describe(opened, one))) for one in shown]
    there = {found.record.component for found in everything if found.record is not None}
    lines = [line for one, more in described for line in (_line(opened, one), *(f"  {m}" for m in more))]
    missing = [name for name in chosen if name not in there]
    if not everything or missing:
        lines.insert(0, _none(bundle, f" of {', '.join(missing)}" if everything else ""))
    data = [{**_data(opened, one), "description": more} for one, more in described]
    result("\n".join(lines), {"engines": data})


@engines_group.command("prune")
@BUNDLE
@mode_options
def prune_command(bundle: Path) -> None:
    """Delete stale and damaged engines, and leftovers of interrupted builds."""
    from ltxrt.engines.bundle import read_bundle
    from ltxrt.engines.storage import locks
    from ltxrt.engines.tensorrt import cache

    with job() as report:
        opened = read_bundle(bundle)
        with locks.writing(opened.root):
            found = _engines(opened, True, report)
            gone = cache.prune(opened, found)
    deleted = [str(path.relative_to(opened.root)) for path in gone]
    left = [str(f.path.relative_to(opened.root)) for f in found if f.problem and f.path not in gone]
    lines = [f"deleted {path}" for path in deleted]
    lines += [f"left {path}: its name is none that ltxrt gives; delete it yourself" for path in left]
    lines += [] if gone else ["nothing to delete"]
    result("\n".join(lines), {"deleted": deleted, "left": left})


def _show(bundle: Path, hashed: bool) -> Sequence[Found]:
    from ltxrt.engines.bundle import read_bundle

    with job() as report:
        opened = read_bundle(bundle)
        everything = _engines(opened, hashed, report)
    lines = [_line(opened, found) for found in everything] or [_none(bundle)]
    result("\n".join(lines), {"engines": [_data(opened, found) for found in everything]})
    return everything


def _engines(opened: Bundle, hashed: bool, report: Report) -> list[Found]:
    from ltxrt.engines.tensorrt import build as trt
    from ltxrt.engines.tensorrt import cache

    installed = trt.installed()
    return cache.verify(opened, installed, report) if hashed else cache.engines(opened, installed)


def _none(bundle: Path, of: str = "") -> str:
    return f"no engines{of}; build them with: ltx-export build-engines --bundle {bundle} --profile 512x768x97"


def _data(bundle: Bundle, found: Found) -> dict[str, Any]:
    """An engine as `--json` prints it."""
    path, record = str(found.path.relative_to(bundle.root)), found.record
    if record is None:
        return {"path": path, "problem": found.problem}
    return {
        "path": path,
        **{name: getattr(record, name) for name in _SHOWN},
        "profiles": [profile.get("text") for profile in record.profiles],
        "fused_attentions": record.attentions - record.decomposed,
        "problem": found.problem or None,
    }


def _line(bundle: Bundle, found: Found) -> str:
    record, place = found.record, found.path.relative_to(bundle.root)
    if record is None:
        return f"{place}: {found.problem}"
    profiles = ", ".join(str(p.get("text")) for p in record.profiles)
    whole = record.attentions - record.decomposed
    attention = f", {whole} of {record.attentions} attentions kept whole" if record.attentions else ""
    state = f"; NOT USABLE: {found.problem}" if found.problem else ""
    return f"{place}: {file_size(record.bytes)}, {profiles}{attention}{state}"


def _targets(flavour: Any, backend: str, target: str | None) -> list[str]:
    from ltxrt.engines.tensorrt import build as trt

    if flavour.targets is None:
        if target is not None:
            raise InputError(f"--target {target}: {backend} builds for the GPU of this machine; leave it out")
        return [trt.THIS_GPU]
    if target is None:
        raise InputError(f"--target is missing; {backend} builds for {', '.join(flavour.targets)}")
    return list(dict.fromkeys(target.split(",")))


def _profiles(bundle: Bundle, texts: tuple[str, ...], max_tokens: int, extra: int) -> tuple[Profile, ...]:
    from ltxrt.engines.tensorrt import profiles

    for name, value, least in (("--max-tokens", max_tokens, 2), ("--extra-frames", extra, 0)):
        if value < least:
            raise InputError(f"{name} {value}: must be {least} or more")
    unique = dict.fromkeys(texts)
    return tuple(profiles.parse(text, bundle.facts, max_tokens, extra) for text in unique)


def _components(bundle: Bundle, chosen: tuple[str, ...]) -> tuple[str, ...]:
    for name in chosen:
        bundle.precision(name, prefer=tuple(bundle.components.get(name, ())))
    return tuple(dict.fromkeys(chosen)) or tuple(bundle.components)


def _precision(bundle: Bundle, component: str, text: str | None) -> str:
    """The precision to build: the requested one, or the first of bf16, fp16, fp32 in the bundle."""
    wanted = parse_precisions(text, bundle.components).get(component) if text else None
    return bundle.precision(component, wanted, ("bf16", "fp16", "fp32"))
