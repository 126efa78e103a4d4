import gc
import subprocess
import sys

import pytest

from ltxrt.engines import start


@pytest.mark.parametrize("collects", [True, False])
def test_garbage_is_collected_after_an_import_as_before_it(collects):
    before, frozen = gc.isenabled(), gc.get_freeze_count()
    (gc.enable if collects else gc.disable)()
    try:
        with pytest.raises(ImportError), start.importing():
            assert not gc.isenabled()
            raise ImportError
        assert (gc.isenabled(), gc.get_freeze_count()) == (collects, frozen)
    finally:
        (gc.enable if before else gc.disable)()


def test_a_command_collects_garbage_and_does_not_look_at_its_modules_again():
    code = (
        "import gc\nfrom ltxrt.engines import start\n"
        "start.run(lambda: lambda: print(gc.isenabled(), gc.get_freeze_count() > 1000))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "True True\n"), done.stderr
