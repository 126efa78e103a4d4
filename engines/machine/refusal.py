"""What is said of a precision that a backend does not run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ltxrt.engines.errors import InputError, setting

if TYPE_CHECKING:
    from ltxrt.engines.bundle import Bundle


def not_run(
    bundle: Bundle, component: str, precision: str, backend: str, runs: Sequence[str], others: Sequence[str]
) -> InputError:
    """The refusal, with the precisions that `backend` `runs` and the backends that run this one."""
    here = [one for one in runs if one in bundle.components.get(component, {})]
    add = f"another precision, which {bundle.adding(component, runs[0])} adds"
    way = f"{setting('precision')} {component}={here[0]}" if here else add
    return InputError(
        f"{component} in {precision}: {backend} does not run {precision}; take {way}"
        + f", or {setting('backend')} {' or '.join(others)}" * bool(others)
    )
