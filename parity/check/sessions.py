"""What the sessions (`ltxrt.engines.backend.Session`) that run on the host share."""

from __future__ import annotations

import numpy as np


class HostSession:
    """A bound input is a copy: nothing is uploaded, and the caller's array may change."""

    def upload(self, name: str, array: np.ndarray) -> np.ndarray:
        return array.copy()

    def interrupt(self) -> None:
        """A run of the reference is not ended: nobody waits for another."""

    def resume(self) -> None:
        """There is nothing to take back."""
