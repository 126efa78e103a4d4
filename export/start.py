"""`ltx-export` as it is installed: loads `ltxrt.export.cli` where an interruption is handled."""

from collections.abc import Callable

from ltxrt.engines.start import run


def _load() -> Callable[[], object]:
    from ltxrt.export.cli import main

    command: Callable[[], object] = main
    return command


def main() -> None:
    """The console command."""
    run(_load)
