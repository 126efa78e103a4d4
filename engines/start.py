"""The first lines of the console commands: an interruption while the rest is loaded is one line as well.

Imports next to nothing, so that little can be interrupted before it.
"""

import signal
import sys
from collections.abc import Callable


def run(load: Callable[[], Callable[[], object]]) -> None:
    """Run the command that `load` imports; Ctrl-C meanwhile ends with exit status 130."""
    try:
        load()()
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # pressed twice, it would interrupt what follows
        sys.stderr.write("interrupted\n")
        sys.exit(130)
