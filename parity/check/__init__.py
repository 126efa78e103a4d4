"""The parity check: every component, precision and backend of a bundle against torch."""

from ltxrt.engines.public import public

__all__, __getattr__ = public(
    __name__,
    "asked bisect end_to_end inputs results run",
    emulation="beside",
    sessions="HostSession",
    tolerances="END_TO_END tolerance",
)
