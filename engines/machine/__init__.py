"""What this machine is and which backend runs a bundle on it: names, memory, GPUs, the choice, the doctor."""

from ltxrt.engines.public import public

__all__, __getattr__ = public(
    __name__,
    "names resources",
    choice="Choice best",
    doctor="examine",
    refusal="not_run",
    verdict="conclude lines",
)
