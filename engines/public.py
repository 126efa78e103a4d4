"""What a package's `__init__` says: which of its names other packages may use."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any


def public(package: str, modules: str = "", **names: str) -> tuple[list[str], Callable[[str], Any]]:
    """`__all__` and `__getattr__` of `package`: modules that are public as a whole, then names by module.

    Each is loaded when it is first used, because `ltx-run --help` must not import NumPy. A test compares the
    tables with what other packages import.
    """
    home = {name: module for module, listed in names.items() for name in listed.split()}

    def load(name: str) -> Any:
        if name in modules.split():
            return importlib.import_module(f"{package}.{name}")
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{home[name]}"), name)

    return sorted({*modules.split(), *home}), load
