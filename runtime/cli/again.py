"""`ltx-run --from VIDEO`: the settings, files and engines that a video says it was made with."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from ltxrt.engines.backend import BACKENDS, available, why_not
from ltxrt.engines.bundle import Bundle
from ltxrt.engines.errors import InputError, LtxrtError, setting
from ltxrt.engines.terminal import warn
from ltxrt.runtime.media.formats import Encoding

if TYPE_CHECKING:
    from ltxrt.runtime.request.record import Record


class Again:
    """What a video remembers, for a run that makes it again; of no video, nothing."""

    def __init__(self, video: Path | None, folders: Collection[Path]) -> None:
        if video is None and folders:
            raise InputError(
                f"{setting('sources')} is where the files of a video are; give {setting('from')}"
            )
        self.record: Record | None = None if video is None else _read(video)
        self._folders = tuple(folders)

    def fields(self, given: Collection[str], bundle: Bundle) -> dict[str, Any]:
        """The request's fields, but for the settings that are `given` otherwise."""
        if self.record is None:
            return {}
        from ltxrt.runtime import remade

        values, notes = remade.fields(self.record, bundle, given, self._folders)
        for line in notes:
            warn(line)
        return values

    def choose_engines(self, pool: dict[str, Any], bundle: Bundle) -> None:
        """Fill in what the options of the pool leave open. Says where the same frames cannot be expected."""
        if self.record is None:
            return
        from ltxrt.runtime import remade

        source = click.get_current_context().get_parameter_source("backend")
        if source in (None, ParameterSource.DEFAULT, ParameterSource.DEFAULT_MAP):
            _choose_backend(self.record, pool, bundle)
        pool["precision"] = {**_precisions(self.record, pool["precision"], bundle), **pool["precision"]}
        if pool["threads"] is None:
            pool["threads"] = remade.threads(self.record)
        for line in remade.other_weights(self.record, bundle, pool["precision"]):
            warn(line)

    def encoding(self, output: Path, given: Encoding) -> Encoding:
        """How to encode: as given, or as the video was where `output` can be."""
        if given != Encoding() or self.record is None or self.record.encoding is None:
            return given
        try:
            return self.record.encoding.resolved(output)
        except InputError:
            return given


def _read(video: Path) -> Record:
    from ltxrt.runtime.request import record  # for this alone

    try:
        return record.read(video)
    except InputError as error:
        raise InputError(f"{setting('from')} {error}") from error


def _choose_backend(made: Record, pool: dict[str, Any], bundle: Bundle) -> None:
    why = "this version does not know it"
    if made.backend in BACKENDS:
        why = _refusal(made, {**made.precisions, **pool["precision"]}, bundle, pool["device"])
        if not why:
            place = available(made.backend, pool["device"])
            if made.place not in ("", place):
                warn(
                    f"note: {made.file} was made on {made.place}, and this is {place}, which may round "
                    "otherwise"
                )
            pool["backend"] = made.backend
            pool["keep_loaded"] = pool["keep_loaded"] or made.many_calls
            return
    warn(
        f"note: {made.file} was made on {made.backend}, which does not run here: {why}; another backend "
        "rounds otherwise, so that the video will differ a little"
    )


def _refusal(made: Record, precisions: Mapping[str, str], bundle: Bundle, device: int) -> str:
    for component, precision in precisions.items():
        try:
            why = why_not(bundle, component, made.backend, precision, device)
        except LtxrtError as error:
            why = str(error)
        if why:
            return why
    return ""


def _precisions(made: Record, given: Mapping[str, str], bundle: Bundle) -> dict[str, str]:
    """The video's precisions. InputError for one that the bundle does not have."""
    found = {}
    for component, precision in made.precisions.items():
        if component in given:
            continue
        has = bundle.components.get(component, {})
        if precision not in has:
            raise InputError(
                f"{made.file} was made with {component} in {precision}, and this bundle has "
                f"{', '.join(has) or 'none'}; export it too, or give {setting('precision')} "
                f"{component}={next(iter(has), 'PRECISION')}"
            )
        found[component] = precision
    return found
