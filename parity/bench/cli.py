"""`ltx-parity bench`: the same work on this runtime and on what a user would run instead, in one run.

    python -m ltxrt.parity.bench --suite quick --output benchmarks.md

torch and diffusers are imported by the workers alone.
"""

from __future__ import annotations

import datetime
import itertools
import os
import platform
import shlex
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ltxrt.engines.cli_base import ltxrt_command
from ltxrt.engines.errors import InputError, MissingPackageError
from ltxrt.engines.host import cpu_name, cpuinfo, package_version
from ltxrt.engines.progress import Progress, Report
from ltxrt.engines.storage.files import temporary_folder_for
from ltxrt.engines.terminal import job, mode_options, note, result

if TYPE_CHECKING:
    from ltxrt.engines.terminal import Job
    from ltxrt.parity.bench.report import Section
    from ltxrt.parity.bench.sections import Plan

PATH = click.Path(path_type=Path)
COUNT = click.IntRange(1, 1000)
# The names of sections.SECTIONS, which `--help` need not load.
NAMES = ("peak", "transformer", "components", "videos", "cold-start", "memory", "full-size")
PACKAGES = ("ltxrt", "onnxruntime", "torch", "diffusers", "transformers", "numpy")


@dataclass(frozen=True)
class Suite:
    """How much is measured."""

    tokens: tuple[int, ...]
    repeats: int
    videos: tuple[str, ...]
    sections: tuple[str, ...] = NAMES


SUITES = {
    "quick": Suite((256, 1024), 3, ("tiny",), NAMES[:-1]),
    "full": Suite((512, 1024, 2048, 4096), 5, ("tiny", "medium")),
}


def parse_tokens(text: str) -> tuple[int, ...]:
    """`256,1024` in ascending order, each once."""
    try:
        tokens = tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError:
        tokens = (0,)
    if not 1 <= tokens[0] <= tokens[-1] <= 1 << 16:
        raise InputError(f"--tokens {text!r}: must be numbers from 1 to 65536 with commas, as 256,1024")
    return tokens


@ltxrt_command("bench")
@click.option("--work", type=PATH, help="Folder for the models, kept.  [default: a temporary one]")
@click.option(
    "--suite",
    type=click.Choice(list(SUITES)),
    default="quick",
    show_default=True,
    help="How much to measure.",
)
@click.option(
    "--only",
    type=click.Choice(NAMES),
    multiple=True,
    metavar="NAME",
    help=f"One of {', '.join(NAMES)}; repeatable.  [default: the suite's]",
)
@click.option("--output", type=PATH, default=Path("docs/benchmarks.md"), show_default=True)
@click.option("--threads", type=COUNT, default=2, show_default=True, help="CPU threads of every contender.")
@click.option("--repeats", type=COUNT, help="Timed repetitions.  [default: the suite's]")
@click.option("--layers", type=COUNT, default=4, show_default=True, help="Of the wide transformer.")
@click.option("--tokens", help="Token counts of the transformer, as 256,1024.  [default: the suite's]")
@click.option("--compile", "compiled", is_flag=True, help="Also diffusers through torch.compile.")
@click.option(
    "--from",
    "earlier",
    type=PATH,
    metavar="JSON",
    help="Measure nothing: write the page and plots of this earlier result again.",
)
@mode_options
def bench_command(**options: Any) -> None:
    """Time this runtime beside diffusers and write a page with tables and plots, and the samples as JSON."""
    if options["earlier"] is not None:
        _redraw(options["earlier"], options["output"])
        return
    suite = SUITES[options["suite"]]
    tokens = parse_tokens(options["tokens"]) if options["tokens"] else suite.tokens
    only = [name for name in NAMES if name in options["only"]] or suite.sections
    _check_output(options["output"])
    with job() as progress:
        written = _measured(options, suite, tokens, only, progress)
    result("\n".join(map(str, written)), {"files": list(map(str, written)), "sections": list(only)})


def _redraw(earlier: Path, output: Path) -> None:
    _check_output(output)
    try:
        from ltxrt.parity.bench import page, report
    except ModuleNotFoundError as error:
        raise MissingPackageError(error.name or "matplotlib", "export,parity") from error
    written = page.write(report.read(earlier), output)
    result("\n".join(map(str, written)), {"files": list(map(str, written))})


def _measured(
    options: dict[str, Any], suite: Suite, tokens: tuple[int, ...], only: Sequence[str], progress: Job
) -> list[Path]:
    """Measure the sections `only` and write the page and what goes with it: their paths."""
    progress(Progress("loading matplotlib and onnx"))
    try:
        from ltxrt.parity.bench import page, report
        from ltxrt.parity.bench import plots as _plots  # noqa: F401  (before minutes of measuring, not after)
        from ltxrt.parity.bench.sections import MEASUREMENTS, Plan
    except ModuleNotFoundError as error:
        raise MissingPackageError(error.name or "matplotlib", "export,parity") from error

    machine = _machine()
    with _folder(options["work"]) as work:
        plan = Plan(
            work=work,
            threads=options["threads"],
            repeats=options["repeats"] or suite.repeats,
            tokens=tokens,
            layers=options["layers"],
            videos=suite.videos,
            compiled=options["compiled"],
        )
        counts = {name: MEASUREMENTS[name](plan) for name in only}
        progress.expect({name: float(count) for name, count in counts.items()}, f"bench {options['suite']}")
        sections = tuple(
            _watched(name, replace(plan, say=_counting(name, counts[name], progress))) for name in only
        )
    settings = {"threads": str(plan.threads), "repetitions": str(plan.repeats), "suite": options["suite"]}
    found = report.Result(
        schema=report.SCHEMA,
        command=_command(options),
        created=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        machine=machine,
        versions={name: _version(name) for name in PACKAGES},
        settings=settings,
        sections=sections,
    )
    return page.write(found, options["output"])


def _counting(name: str, total: int, progress: Report) -> Callable[[str], None]:
    """Tells what is measured next, and counts it in the progress of its section."""
    done = itertools.count()

    def say(line: str) -> None:
        note(line)
        progress(Progress(name, min(next(done), total), total, "measurement"))

    progress(Progress(name, 0, total, "measurement"))
    return say


def _watched(name: str, plan: Plan) -> Section:
    """A section, with the cores that other processes used while it was measured."""
    from ltxrt.parity.bench.sections import SECTIONS

    before, start = _others(), time.monotonic()
    section = SECTIONS[name](plan)
    after, seconds = _others(), time.monotonic() - start
    if before is None or after is None:
        return section
    return replace(section, others=max(0.0, (after - before) / seconds))


def _others() -> float | None:
    """Seconds of the machine's cores that went to others than this process and the ones it has ended.

    Linux's table: user, nice, system, idle, iowait, irq, softirq, steal; what a hypervisor took is counted.
    """
    try:
        first = Path("/proc/stat").read_text(encoding="utf-8").splitlines()[0]
        ticks = [int(field) for field in first.split()[1:9]]
    except (OSError, ValueError, IndexError):
        return None
    import resource  # not there on Windows, which has no such table either

    busy = (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return busy - sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _check_output(output: Path) -> None:
    """Before minutes of measuring, not after."""
    if output.suffix != ".md":
        raise InputError(f"--output {output}: must end in .md; JSON and plots are written beside it")
    if not output.parent.is_dir():
        raise InputError(f"--output {output}: its folder does not exist; make it first")
    folder = output.with_suffix("")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--output {output}: the plots need a folder {folder}, which is a file")


@contextmanager
def _folder(work: Path | None) -> Iterator[Path]:
    """The given folder, made where it is not there, or a temporary one."""
    if work is None:
        with temporary_folder_for(Path(tempfile.gettempdir()) / "ltxrt-bench") as temporary:
            yield temporary
        return
    if work.exists() and not work.is_dir():
        raise InputError(f"--work {work}: is not a folder; give one, or a name that is free")
    work.mkdir(parents=True, exist_ok=True)
    yield work


def _command(options: dict[str, Any]) -> str:
    """As a user would type it, without the scratch folder and absolute paths, which change nothing."""
    words = ["ltx-parity", "bench", "--suite", options["suite"]]
    for name in options["only"]:
        words += ["--only", name]
    for name in ("threads", "layers", "repeats", "tokens"):
        words += [f"--{name}", str(options[name])] if options[name] else []
    words += ["--compile"] if options["compiled"] else []
    output = options["output"]
    return shlex.join([*words, "--output", output.name if output.is_absolute() else str(output)])


def _machine() -> dict[str, str]:
    """What the figures depend on; the load before the run says whether others were at work."""
    import psutil

    memory = psutil.virtual_memory().total
    return {
        "CPU": _cpu(),
        "cores": str(os.cpu_count()),
        "memory": f"{memory / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "load average before": f"{psutil.getloadavg()[0]:.2f}",
    }


def _cpu() -> str:
    """The model's name, and the widest vectors that it has."""
    flags = cpuinfo().get("flags", "").split()
    widest = next((name for name in ("avx512f", "avx2", "avx") if name in flags), "")
    return f"{cpu_name()}{f' ({widest})' if widest else ''}"


def _version(package: str) -> str:
    return package_version(package) or "not installed"
