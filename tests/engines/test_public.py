import subprocess
import sys

import pytest

from ltxrt import engines


@pytest.mark.parametrize("name", engines.__all__)
def test_every_public_name_is_there(name):
    assert getattr(engines, name) is not None


def test_others_are_not():
    with pytest.raises(AttributeError, match="has no attribute 'Pipeline'"):
        engines.Pipeline  # noqa: B018


def test_importing_the_package_is_light():
    check = "import sys, ltxrt.engines, ltxrt.engines.precision; print('numpy' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
