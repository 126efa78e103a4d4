"""`ltx-parity bench`: the same work on this runtime and on what a user would run instead, in one run.

    python -m ltxrt.parity.bench --suite quick --output benchmarks.md

torch and diffusers are imported by the workers alone.
"""

from __future__ import annotations

import datetime
import functools
import importlib.metadata
import os
import platform
import resource
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ltxrt.engines.cli_base import ltxrt_command
from ltxrt.engines.errors import InputError
from ltxrt.parity.environment import cpuinfo

if TYPE_CHECKING:
    from ltxrt.parity.bench.results import Section

PATH = click.Path(path_type=Path)
# The names of bench_cases.SECTIONS, which `--help` need not load.
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


@ltxrt_command("bench")
@click.option("--work", type=PATH, help="Where the models are made; kept. [default: a temporary folder]")
@click.option("--suite", default="quick", show_default=True, metavar="|".join(SUITES), help="How much.")
@click.option(
    "--only",
    multiple=True,
    metavar="NAME",
    help=f"One of {', '.join(NAMES)}; repeatable. [default: the suite's]",
)
@click.option("--output", type=PATH, default=Path("docs/benchmarks.md"), show_default=True)
@click.option("--threads", type=int, default=2, show_default=True, help="For every contender.")
@click.option("--repeats", type=int, help="Timed repetitions. [default: the suite's]")
@click.option("--layers", type=int, default=4, show_default=True, help="Of the wide transformer.")
@click.option("--tokens", help="Token counts of the transformer, as 256,1024. [default: the suite's]")
@click.option("--compile", "compiled", is_flag=True, help="diffusers through torch.compile as well.")
def bench_command(**options: Any) -> None:
    """Time this runtime beside diffusers and write a page with tables and plots, and the samples as JSON."""
    suite = _suite(options)
    only = _sections(options["only"], suite)
    _check_output(options["output"])
    from ltxrt.parity.bench import report as bench_report
    from ltxrt.parity.bench import results as bench_results
    from ltxrt.parity.bench.cases import SECTIONS, Plan

    machine = _machine()
    with _folder(options["work"]) as work:
        plan = Plan(
            work,
            options["threads"],
            suite.repeats,
            suite.tokens,
            options["layers"],
            suite.videos,
            options["compiled"],
        )
        sections = tuple(_watched(functools.partial(SECTIONS[name], plan, _say)) for name in only)
    settings = {"threads": str(plan.threads), "repetitions": str(plan.repeats), "suite": options["suite"]}
    result = bench_results.Result(
        schema=bench_results.SCHEMA,
        command=_command(options),
        created=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        machine=machine,
        versions=_versions(),
        settings=settings,
        sections=sections,
    )
    for path in bench_report.write(result, options["output"]):
        click.echo(path)


def _say(text: str) -> None:
    click.echo(text, err=True)


def _watched(measure: Callable[[], Section]) -> Section:
    """A section, with the cores that other processes took while it was measured."""
    before, start = _others(), time.monotonic()
    section = measure()
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
    busy = (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return busy - sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _suite(options: dict[str, Any]) -> Suite:
    """The suite with what was said beside it. InputError for what cannot be."""
    name = options["suite"]
    if name not in SUITES:
        raise InputError(f"--suite {name!r}: must be one of {', '.join(SUITES)}")
    for option in ("threads", "repeats", "layers"):
        value = options[option]
        if value is not None and not 1 <= value <= 1000:
            raise InputError(f"--{option} {value}: must be between 1 and 1000")
    suite = replace(SUITES[name], repeats=options["repeats"] or SUITES[name].repeats)
    return replace(suite, tokens=parse_tokens(options["tokens"])) if options["tokens"] else suite


def parse_tokens(text: str) -> tuple[int, ...]:
    """`256,1024` in ascending order, each once."""
    try:
        tokens = tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError:
        tokens = (0,)
    if not 1 <= tokens[0] <= tokens[-1] <= 1 << 16:
        raise InputError(f"--tokens {text!r}: must be numbers from 1 to 65536 with commas, as 256,1024")
    return tokens


def _sections(only: tuple[str, ...], suite: Suite) -> list[str]:
    unknown = [name for name in only if name not in NAMES]
    if unknown:
        raise InputError(f"--only {unknown[0]!r}: must be one of {', '.join(NAMES)}")
    return [name for name in NAMES if name in only] or list(suite.sections)


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
    if work is not None:
        if work.exists() and not work.is_dir():
            raise InputError(f"--work {work}: is not a folder; give one, or a name that is free")
        work.mkdir(parents=True, exist_ok=True)
        yield work
        return
    temporary = Path(tempfile.mkdtemp(prefix="ltxrt-bench-"))
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _command(options: dict[str, Any]) -> str:
    """As a user would type it, without the scratch folder and absolute paths, which change nothing."""
    words = ["ltx-parity", "bench", "--suite", options["suite"]]
    for name in options["only"]:
        words += ["--only", name]
    words += ["--threads", str(options["threads"]), "--layers", str(options["layers"])]
    for name in ("repeats", "tokens"):
        words += [f"--{name}", str(options[name])] if options[name] else []
    words += ["--compile"] if options["compiled"] else []
    output = options["output"]
    return shlex.join([*words, "--output", output.name if output.is_absolute() else str(output)])


def _machine() -> dict[str, str]:
    """What the figures depend on; the load before the run says whether others were at work."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "CPU": _cpu(),
        "cores": str(os.cpu_count()),
        "memory": f"{memory / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "load average before": f"{os.getloadavg()[0]:.2f}",
    }


def _cpu() -> str:
    """The model's name, and the widest vectors that it has."""
    facts = cpuinfo()
    if not facts:
        return platform.processor() or platform.machine()
    widest = next((name for name in ("avx512f", "avx2", "avx") if name in facts.get("flags", "").split()), "")
    return f"{facts.get('model name', platform.machine())}{f' ({widest})' if widest else ''}"


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


if __name__ == "__main__":
    bench_command()
