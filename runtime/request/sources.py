"""Finds the files that a video was made from, by their hashes: beside the video, here, and in named folders.

They are not stored in the video, which would carry its maker's photos wherever it is sent, at many times its
size.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ltxrt.engines.errors import InputError, setting
from ltxrt.engines.storage.files import sha256
from ltxrt.runtime.media.condition import Condition
from ltxrt.runtime.request.record import Record, Source

MOST_ENTRIES = 10_000  # of a folder that are looked at; its subfolders are not


def folders(record: Record, others: Sequence[Path] = ()) -> list[Path]:
    """Where a video's files are looked for: beside it, in the current folder, and in `others`.

    Raises InputError for one of `others` that is no folder.
    """
    for folder in others:
        if not folder.is_dir():
            raise InputError(f"{setting('sources')} {folder}: no such folder")
    return list(dict.fromkeys((Path(record.file).absolute().parent, Path.cwd(), *others)))


def fields(record: Record, places: Sequence[Path], replaced: Collection[str] = ()) -> dict[str, Any]:
    """The files as fields of a request, but for the settings that are `replaced`.

    Raises InputError for a file that is in none of the folders.
    """
    found: dict[str, Any] = {}
    conditions = []
    for source in record.sources:
        if source.setting in replaced:
            continue
        path = _found(record, source, places)
        if source.setting == "conditions":
            conditions.append(Condition(path, source.frame, source.strength))
        else:
            found[source.setting] = path
    return {**found, "conditions": tuple(conditions)} if conditions else found


def _found(record: Record, source: Source, places: Sequence[Path]) -> Path:
    give = f"give it by {setting(source.setting)}"
    if source.sha256 is None or source.size is None:
        raise InputError(f"{record.file} was made from {source.name}, pixels that a program gave; {give}")
    for path in _candidates(source, places):
        if _is(path, source):
            return path
    looked = ", ".join(map(str, places))
    raise InputError(
        f"{record.file} was made from {source.name} (SHA-256 {source.sha256[:12]}…), which is not in "
        f"{looked}; name its folder by {setting('sources')}, or {give}"
    )


def _candidates(source: Source, places: Iterable[Path]) -> Iterator[Path]:
    """Files of the recorded size: those with its name first, as most have kept it."""
    yield from (folder / source.name for folder in places)
    for folder in places:
        try:
            with os.scandir(folder) as entries:
                for _, entry in zip(range(MOST_ENTRIES), entries):
                    if entry.is_file() and entry.stat().st_size == source.size:
                        yield Path(entry.path)
        except OSError:
            continue


def _is(path: Path, source: Source) -> bool:
    try:
        return path.is_file() and path.stat().st_size == source.size and sha256(path) == source.sha256
    except OSError:
        return False
