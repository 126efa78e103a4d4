"""What a person at a terminal sees of all three commands: progress, warnings and results.

The one place that knows whether there is a terminal, and the options `--quiet` and `--json`.
"""

from ltxrt.engines.public import public

__all__, __getattr__ = public(
    __name__,
    "interrupts mode",
    interrupts="on_interrupt",
    jobs="Job job",
    output="mode_options note result warn",
)
