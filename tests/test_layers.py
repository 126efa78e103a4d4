"""Who may import whom, and who may know what. Lazy imports inside functions count."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("api", "engines", "runtime", "export", "parity")

MAY_IMPORT = {
    "api": {"ltxrt.engines", "ltxrt.runtime"},
    "engines": {
        "numpy", "click", "onnx", "onnxruntime", "tensorrt", "tensorrt_rtx", "cuda", "psutil", "pynvml",
        "rich", "ltxrt.engines",
    },
    "runtime": {"numpy", "click", "tokenizers", "PIL", "av", "yaml", "ltxrt.engines", "ltxrt.runtime"},
    "export": {
        "numpy", "click", "tokenizers", "ml_dtypes", "onnx", "onnx_ir", "onnxscript", "torch", "safetensors",
        "transformers", "huggingface_hub", "tqdm", "ltxrt.engines", "ltxrt.export",
    },
    "parity": None,  # everything
}  # fmt: skip

FILES = [p for folder in FOLDERS for p in sorted((ROOT / folder).rglob("*.py"))]


def imports(source):
    """Every imported name, with how many dots a relative one has; `import_module("x")` counts."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, 0) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((f"{node.module or ''}.{alias.name}", node.level) for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__"):
                yield node.args[0].value, 0


def violations(folder, source):
    """What `source`, a module of `folder`, imports although it must not."""
    allowed = MAY_IMPORT[folder]
    found = []
    for name, level in imports(source):
        top = name.split(".")[0]
        package = ".".join(name.split(".")[:2]) if top == "ltxrt" else top
        if (
            level
            or top in FOLDERS
            or (allowed is not None and package not in allowed and package not in sys.stdlib_module_names)
        ):
            found.append(name)
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_follow_the_house(path):
    folder = path.relative_to(ROOT).parts[0]
    assert violations(folder, path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("folder", "source"),
    [
        ("api", "from ltxrt.export import versions"),
        ("api", "import numpy"),
        ("runtime", "from ltxrt import Pipeline"),
        ("runtime", "def f():\n    import torch"),
        ("runtime", "if TYPE_CHECKING:\n    import torch"),
        ("runtime", "import torch.nn.functional as F"),
        ("engines", "import importlib\nimportlib.import_module('torch')"),
        ("engines", "__import__('transformers')"),
        ("engines", "import ltxrt"),
        ("runtime", "import requests"),
        ("runtime", "from transformers import T5Tokenizer"),
        ("runtime", "from ltxrt.export import versions"),
        ("runtime", "from ltxrt import parity"),
        ("engines", "from ltxrt.runtime.sampling.rope import tables"),
        ("engines", "import ltxrt.export"),
        ("export", "from ltxrt.runtime import latents"),
        ("export", "import diffusers"),
        ("parity", "import runtime"),
        ("parity", "from . import demo"),
        ("engines", "from .files import sha256"),
    ],
)
def test_the_checker_sees_a_planted_violation(folder, source):
    assert violations(folder, source)


def test_packages_are_the_folders_that_hold_modules():
    """An undeclared subpackage works in an editable install and is missing from the wheel."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {".".join(("ltxrt", *p.parent.relative_to(ROOT).parts)) for p in FILES} - {"ltxrt.api"}
    folders.add("ltxrt")  # what `api` is installed as
    assert set(settings["packages"]) == folders


@pytest.mark.parametrize("folder", ["runtime/sampling", "runtime/vae"])
def test_sampling_and_tiling_know_no_family(folder):
    for path in (ROOT / folder).rglob("*.py"):
        found = [name for name, _ in imports(path.read_text(encoding="utf-8"))]
        assert not [name for name in found if ".families" in name or ".ltxv" in name], path


@pytest.mark.parametrize("folder", ["engines", "runtime"])
def test_no_version_is_known_by_name(folder):
    for path in (ROOT / folder).rglob("*.py"):
        found = re.findall(r"0\.9\.\d|13b|distilled", path.read_text(encoding="utf-8"), re.IGNORECASE)
        assert found == [], path


HEAVY = (
    *("torch", "transformers", "diffusers", "safetensors", "onnx", "onnxruntime"),
    *("av", "tokenizers", "PIL", "numpy"),
)


def run_python(code):
    """What `code` prints last, in a fresh interpreter."""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()[-1]


@pytest.mark.parametrize("module", ["ltxrt.runtime.cli", "ltxrt.export.cli"])
def test_help_loads_nothing_heavy(module):
    loaded = run_python(
        "import sys, runpy\nsys.argv = ['x', '--help']\n"
        f"try:\n    runpy.run_module({module!r}, run_name='__main__')\n"
        "except SystemExit as e:\n    assert not e.code\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    assert loaded == "[]"


def test_every_deployment_module_loads_where_the_build_box_packages_are_absent():
    files = [p.relative_to(ROOT) for folder in ("engines", "runtime") for p in (ROOT / folder).rglob("*.py")]
    modules = [".".join(("ltxrt", *p.with_suffix("").parts)) for p in files if p.stem != "__init__"]
    absent = ("torch", "transformers", "diffusers", "safetensors", "onnx", "polygraphy")
    loaded = run_python(
        "import sys, importlib\n"
        f"sys.modules.update(dict.fromkeys({absent!r}))  # None: importing it fails\n"
        f"print(len([importlib.import_module(m) for m in {modules!r}]))"
    )
    assert int(loaded) == len(modules) > 20
