"""`ltx-parity` as it is installed: loads `ltxrt.parity.cli` where an interruption is handled."""

from collections.abc import Callable

from ltxrt.engines.start import run


def _load() -> Callable[[], object]:
    from ltxrt.parity.cli import main

    command: Callable[[], object] = main
    return command


def main() -> None:
    """The console command."""
    run(_load)
