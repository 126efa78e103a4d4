"""A linear map from latents to colours, fitted to a checkpoint's own autoencoder: how a preview is made.

Each latent cell gets one colour, the mean of the pixels that it decodes to. Its error is the price of not
decoding: a preview takes microseconds, the decoder seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from ltxrt.engines.parsing.schema import Most, Within

_Factor = Annotated[float, Within(-1e6, 1e6)]
_Row = Annotated[tuple[_Factor, ...], Most(4096, least=1)]


@dataclass(frozen=True)
class Preview:
    """red, green and blue in 0..1 = `weights` (3 rows of C factors) · normalised latents (C) + `offset`.

    r2: the share of the colours' variance that it explains, in pictures that it was not fitted to.
    """

    weights: Annotated[tuple[_Row, ...], Most(3, least=3)]
    offset: Annotated[tuple[_Factor, ...], Most(3, least=3)]
    r2: Annotated[float, Within(-1e6, 1)]

    def problem(self) -> str:
        """What makes these numbers impossible together, "" where nothing does."""
        lengths = {len(row) for row in self.weights}
        return "" if len(lengths) == 1 else "the rows of weights must have as many factors"
