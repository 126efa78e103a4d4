"""The exceptions of every ltxrt package: one sentence each, with the exit status a command ends with.

A message says what was given, what is allowed and how to fix it.
"""


class LtxrtError(Exception):
    """A failure of ours or of the machine: the command exits 1."""

    exit_code = 1


class InputError(LtxrtError, ValueError):
    """What the user gave cannot be used: a flag, a file, a request. The command exits 2."""

    exit_code = 2


class BundleError(InputError):
    """A bundle that is missing, damaged, half-written or made by a newer version."""


class CheckpointError(InputError):
    """A checkpoint file or folder that cannot be read as what it claims to be."""


class EngineError(LtxrtError):
    """An engine that could not be loaded or run."""


class NumericsError(LtxrtError):
    """A component produced NaN, infinite or constant values; names the component and the step."""


class MissingPackageError(LtxrtError):
    """An optional package is absent; names the extra that installs it."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed; install it with: pip install 'ltxrt[{extra}]'")
