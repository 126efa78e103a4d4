"""The entry point of the console commands, which reports an interruption during imports in one line.

Imports almost nothing, so that little can be interrupted before it.
"""

import signal
import sys
from collections.abc import Callable


def run(load: Callable[[], Callable[[], object]]) -> None:
    """Run the command that `load` imports; Ctrl-C while importing ends with exit status 130."""
    try:
        load()()
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C would interrupt what follows
        sys.stderr.write("interrupted\n")
        sys.exit(130)
