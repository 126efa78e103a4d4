"""Exports that are killed in every stage leave a whole bundle, and the next one sweeps what they left."""

import subprocess
import sys

import pytest

from ltxrt.parity.proofs.kills import STAGES, Moment, moments

CHOSEN = (
    *(Moment(stage, name) for stage in STAGES for name in ("SIGKILL", "SIGTERM")),
    *(Moment(f"{side} {number}", "SIGKILL") for side in ("before", "after") for number in (2, 3, 6)),
)


@pytest.mark.slow
def test_killed_exports_leave_a_whole_bundle_and_what_they_leave_is_swept():
    """A process of its own, since it forks; every moment must be reached, or the command fails.

    tests/export/test_write.py interrupts exports at the same moments within a process.
    """
    assert set(CHOSEN) <= set(moments())
    command = [sys.executable, "-m", "ltxrt.parity.proofs.kills", "--runs", "0"]
    for moment in CHOSEN:
        command += ["--moment", str(moment)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    *lines, last = result.stdout.splitlines()
    assert last.startswith(f"{len(CHOSEN)} kills at named moments") and len(lines) == len(CHOSEN)
    assert {line.partition(":")[0] for line in lines} == {str(moment) for moment in CHOSEN}
    assert any("1 temporary files" in line for line in lines), "there was something to sweep"
