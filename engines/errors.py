"""The exceptions of every ltxrt package: one sentence each, with the exit status a command ends with.

A message says what was given, what is allowed and how to fix it. It names settings by `setting`, so that each
caller reads the name it knows: Python and HTTP that of the field, a command line that of its option.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# Around a setting's name in a message: control characters, which no name of a setting has.
_SETTING = re.compile("\x0e([a-z0-9_.]+)\x0f")


def setting(name: str) -> str:
    """A setting's name, for messages: "height", "second_pass.steps". `worded` replaces it."""
    return f"\x0e{name}\x0f"


def worded(message: str, name_of: Callable[[str], str]) -> str:
    """A message with `name_of(field)` for each setting that it names."""
    return _SETTING.sub(lambda found: name_of(found[1]), message)


class LtxrtError(Exception):
    """Internal or system error: the command exits 1. `str` names settings as fields."""

    exit_code = 1

    @property
    def field(self) -> str | None:
        """The setting that the message is about: the one it begins with, if it does."""
        found = _SETTING.match(super().__str__())
        return None if found is None else found[1]

    def worded(self, name_of: Callable[[str], str]) -> str:
        """The message with `name_of(field)` for each setting that it names."""
        return worded(super().__str__(), name_of)

    def __str__(self) -> str:
        return self.worded(str)


class InputError(LtxrtError, ValueError):
    """What the user gave cannot be used: a setting, a file, a request. The command exits 2."""

    exit_code = 2


class UnknownKeywordError(InputError, TypeError):
    """A keyword that a function does not have; as Python's own error for it, a TypeError."""


class BundleError(InputError):
    """A bundle that is missing, damaged, half-written or made by a newer version."""


class CheckpointError(InputError):
    """A checkpoint file or folder that cannot be read as what it claims to be."""


class EngineError(LtxrtError):
    """An engine that could not be loaded or run."""


class InterruptedRunError(EngineError):
    """A call that `Engine.interrupt` ended, or that came before `Engine.resume`."""

    def __init__(self, component: str) -> None:
        super().__init__(f"{component}: the call was interrupted")


class NumericsError(LtxrtError):
    """A component produced NaN, infinite or constant values; names the component and the step."""


class MissingPackageError(LtxrtError):
    """An optional package is absent; names the extra that installs it."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed; install it with: pip install 'ltxrt[{extra}]'")


@contextmanager
def within(group: str) -> Iterator[None]:
    """Around what knows settings by their names alone: in errors they become those of `group`, "" for none.

    `within("second_pass")`: an error about "steps" becomes one about "second_pass.steps".
    """
    try:
        yield
    except LtxrtError as error:
        if group:
            error.args = (error.worded(lambda name: setting(f"{group}.{name}")),)
        raise
