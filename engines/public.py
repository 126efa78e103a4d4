"""What a package's `__init__` says: which of its names other packages may use."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def public(package: str, modules: str = "", **names: str) -> tuple[list[str], Callable[[str], Any]]:
    """`__all__` and `__getattr__` of `package`: modules that are public as a whole, then names by module.

    Each is loaded when it is first used, because `ltx-run --help` must not import NumPy. A test compares the
    tables with what other packages import.
    """
    homes = {name: module for module, listed in names.items() for name in listed.split()}
    homes |= dict.fromkeys(modules.split(), "")
    return sorted(homes), lazy(package, homes)


def lazy(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """A package's `__getattr__`: `homes` has the module of each name, "" if the name is itself a module."""

    def load(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        found = importlib.import_module(f"{package}.{homes[name] or name}")
        return getattr(found, name) if homes[name] else found

    return load
