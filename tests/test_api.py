"""`import ltxrt`: the names that programs use, loaded when they are asked for."""

import importlib.metadata
import subprocess
import sys

import ltxrt

# What each name loads that costs more than a few milliseconds.
HEAVY = ("torch", "transformers", "onnxruntime", "av", "PIL", "numpy", "click", "rich", "importlib.metadata")


def loaded_by(code):
    """Which of HEAVY a fresh interpreter has loaded after `code`."""
    show = f"import sys; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-I", "-c", f"{code}\n{show}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_the_package_loads_nothing_heavy():
    preloaded = loaded_by("")  # an editable install's hook may load importlib.metadata
    assert loaded_by("import ltxrt; dir(ltxrt)") == preloaded


def test_all_names_are_there_and_listed():
    for name in ltxrt.__all__:
        assert getattr(ltxrt, name) is not None
    assert dir(ltxrt) == ltxrt.__all__ == sorted(ltxrt.__all__)


def test_the_version_is_the_installed_one():
    assert ltxrt.__version__ == importlib.metadata.version("ltxrt")
