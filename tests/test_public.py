"""What a package's `__init__` lists in `__all__` is there; what other packages use of it is listed."""

import ast
import importlib
from pathlib import Path

import pytest

from ltxrt.runtime import families

ROOT = Path(__file__).parents[1]
FOLDERS = ("api", "engines", "export", "parity", "runtime")
PACKAGES = sorted(p.parent for folder in FOLDERS for p in (ROOT / folder).rglob("__init__.py"))


def dotted(path):
    """The name of a file or a folder; that of `api` is the package's own."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(("ltxrt", *(part for part in parts if part != "api")))


NAMES = [dotted(package) for package in PACKAGES]
# The others say what programs import that are not part of this repository, or what runs as a command.
TABLES = [dotted(p) for p in PACKAGES if "import public\n" in (p / "__init__.py").read_text(encoding="utf-8")]


def uses(package, source):
    """(package, module, name) of all that a module of `package` imports from other packages of ltxrt.

    The name is "" for a module that is imported as a whole, the module "" for a name of the package itself.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ltxrt."):
            home, _, module = ("", "", "") if node.module in NAMES else node.module.rpartition(".")
            for alias in node.names:
                if home and home != package:
                    yield home, module, alias.name
                elif not home and node.module != package and f"{node.module}.{alias.name}" not in NAMES:
                    yield node.module, alias.name, ""


def undeclared(package, source):
    """What a module of `package` uses of other packages although their `__all__` does not have it."""
    return [
        f"{home}: {module} {name}"
        for home, module, name in uses(package, source)
        if name.startswith("_")
        or (home in TABLES and not {module, name} & set(importlib.import_module(home).__all__))
    ]


MODULES = [p for package in PACKAGES for p in sorted(package.glob("*.py")) if p.name != "__init__.py"]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_module_uses_only_public_names_of_other_packages(path):
    assert undeclared(dotted(path.parent), path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("package", NAMES)
def test_public_names_are_there(package):
    names = getattr(importlib.import_module(package), "__all__", [])
    assert [name for name in names if name.startswith("_") and not name.endswith("__")] == []
    exec(f"from {package} import *")  # raises AttributeError for a name that is not there


@pytest.mark.parametrize("package", TABLES)
def test_some_other_package_uses_each_public_name(package):
    used = {
        word
        for path in MODULES
        for home, *words in uses(dotted(path.parent), path.read_text(encoding="utf-8"))
        for word in words
        if home == package
    }
    if package in families.FAMILIES.values():  # what other packages use through the protocol
        used |= {*vars(families.Family), *families.Family.__annotations__}
    assert set(importlib.import_module(package).__all__) - used == set()


@pytest.mark.parametrize(
    ("package", "source"),
    [
        ("ltxrt.runtime.media", "from ltxrt.engines.storage.files import _sweep"),
        ("ltxrt.engines", "def f():\n    from ltxrt.engines.storage.files import _claim as claim"),
        ("ltxrt.engines", "from ltxrt.engines.storage import nothing"),
        ("ltxrt.engines.storage", "from ltxrt.engines.cli_base import _Nothing"),
        ("ltxrt.export", "from ltxrt.engines.storage.nothing import something"),
    ],
)
def test_a_private_name_is_seen(package, source):
    assert undeclared(package, source)


def test_names_of_the_own_package_need_no_list():
    assert undeclared("ltxrt.engines.storage", "from ltxrt.engines.storage.files import _sweep") == []
