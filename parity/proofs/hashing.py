"""The cost of checking files' hashes before they are loaded: `python -m ltxrt.parity.proofs.hashing`."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import click

from ltxrt.engines.cli_base import ltxrt_command
from ltxrt.engines.storage import integrity
from ltxrt.parity.environment import peak_memory

PIECE = 16 << 20


@ltxrt_command("hashing")
@click.option("--gigabytes", type=click.FloatRange(0.01), default=1.0, show_default=True)
def main(gigabytes: float) -> None:
    """Write a file, wait until its time stamp is old enough to be trusted, and check it three times."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        path = root / "weights"
        size = _write(path, round(gigabytes * 1e9))
        time.sleep(integrity.SETTLED / 1e9)
        before = peak_memory()
        first = _seconds(path, root)
        taken = peak_memory() - before
        later = _seconds(path, root)
        integrity.forget()  # as a new process, which has the notes alone
        other = _seconds(path, root)
        rate = size / 1e6 / first
    click.echo(
        f"{size / 1e9:.2f} GB: first {first:.2f} s ({rate:.0f} MB/s, its pages in memory), "
        f"again {later * 1e3:.2f} ms, in another process {other * 1e3:.2f} ms; "
        f"peak memory {taken / 1e6:.1f} MB more"
    )


def _write(path: Path, size: int) -> int:
    with path.open("wb") as file:
        for start in range(0, size, PIECE):
            file.write(bytes(min(PIECE, size - start)))
    return size


def _seconds(path: Path, root: Path) -> float:
    start = time.perf_counter()
    integrity.digest(path, root)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
