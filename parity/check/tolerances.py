"""What an output may be off by in each precision, and why so much. One table.

The reference is torch in fp32. Outputs are first centred and scaled by the reference's own mean and
deviation, so that no figure depends on how large an output is: a relative L2 error of 0.01 is one hundredth
of a deviation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from ltxrt.parity.check.results import Tolerance

Allowed = Mapping[str, tuple[float, str]]  # precision → relative L2 and its reason

# An output that needs others has a row in its family's TOLERANCES.
GENERAL: Allowed = {
    "fp32": (1e-4, "fp32 on both sides: only the order of sums differs, 1e-7 to 1e-6 where it was measured"),
    "fp16": (1e-2, "11 bits: 5e-4 per rounding, added up over the depth of the network"),
    "bf16": (6e-2, "8 bits: 4e-3 per rounding, added up over the depth of the network"),
    "fp8": (1.5e-1, "4 bits in the middle blocks' projections, 6e-2 per rounding, beside bf16 elsewhere"),
    "fp8-fp16": (1e-1, "4 bits in the middle blocks' projections, 6e-2 per rounding, beside fp16 elsewhere"),
}

# precision → least PSNR in dB of 8-bit frames, least cosine of the latents after any step. Errors of single
# steps add up over the schedule, and guidance multiplies them; rounding to 8 bits costs fp32 its last digits.
END_TO_END = {
    "fp32": (45.0, 0.99999),
    "fp16": (35.0, 0.9995),
    "bf16": (25.0, 0.99),
    "fp8": (20.0, 0.97),
    "fp8-fp16": (22.0, 0.98),
}


def tolerance(precision: str, special: Allowed | None = None) -> Tolerance:
    """What an output may be off by in a precision. Cosine and PSNR follow from the relative L2 error e.

    Of an error that is independent of the output, cosine is 1 - e²/2; twice that is allowed. PSNR is measured
    against the reference's largest value, which is a deviation or more, so it is -20 log10(e) or more.
    """
    relative_l2, reason = {**GENERAL, **(special or {})}[precision]
    return Tolerance(relative_l2, 1 - relative_l2**2, -20 * math.log10(relative_l2), reason)
