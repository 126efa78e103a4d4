"""The model families that can be run, and what the package of one provides."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, cast

if TYPE_CHECKING:
    from pathlib import Path

    from ltxrt.engines.bundle import Bundle
    from ltxrt.runtime.engine_pool import Engines

FAMILIES = {"ltx-video": "ltxrt.runtime.ltxv"}  # name in bundles → package


class Family(Protocol):
    """The package of a family."""

    Pipeline: Callable[..., Any]
    """Makes a pipeline of a bundle; keywords as those of `EnginePool`."""

    BEFORE_ALL: Mapping[str, str]
    """Component → its stage, of those that run for all videos of several before the first, and need not be
    kept after."""

    def notes(self, plan: Any, /) -> list[str]:
        """Settings of a planned run that have less effect than their user may expect."""

    def previewing(self, plan: Any, bundle: Bundle, path: Path, /) -> Callable[[Any], None]:
        """A watcher of a run that keeps a preview of it in the file `path`."""

    def metadata(self, plan: Any, engines: Engines, inputs: Sequence[dict[str, Any]], /) -> dict[str, str]:
        """Names and texts for a video's metadata: all that decides its pixels."""

    def expected_seconds(self, plan: Any, engines: Engines, /) -> dict[str, float]:
        """Every stage of a run in order, by its name in progress, with about how long it takes; rough."""

    def timing_key(self, plan: Any, engines: Engines, /) -> str:
        """What the times of a run depend on beside its size (`ltxrt.engines.storage.times`)."""

    def completed_by(self, bundle: Bundle, request: Any, /) -> dict[str, Any]:
        """Every setting's value that a request has with the bundle's presets, by name, as JSON."""

    def explain(self, plan: Any, engines: Engines, /) -> Any:
        """What a planned run would do and take (`to_json`); loads nothing."""

    def shortage(self, plan: Any, engines: Engines, /) -> str | None:
        """A warning if a planned run takes more memory than there is."""


def family(name: str) -> Family:
    """The package of the family with this name in bundles, which `read_bundle` has checked."""
    return cast(Family, importlib.import_module(FAMILIES[name]))
