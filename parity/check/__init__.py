"""The parity check: every component, precision and backend of a bundle against torch."""

from ltxrt.engines.public import public

__all__, __getattr__ = public(
    __name__,
    "bisect demands end_to_end inputs results run",
    emulation="beside",
    tolerances="Allowed END_TO_END tolerance",
)
