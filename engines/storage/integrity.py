"""Verifies a bundle's files against its manifest: each is hashed once, and again when it has changed.

A hash is noted with the file's state (device, inode, size, times of its last change), in memory and in
`.verified.json` in the bundle's folder, or in the user's cache folder if that is read-only. A copied file has
another state, so notes that were copied with a bundle are ignored.

This detects damage and mix-ups. It is no protection against a person with write access to the bundle: whoever
can change a weight can change the manifest too.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterable
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ltxrt.engines.description import file_size
from ltxrt.engines.errors import BundleError, InputError
from ltxrt.engines.storage.files import (
    NotRegularError,
    atomic_write,
    cache_folder,
    inside,
    open_regular,
    read_small,
)

if TYPE_CHECKING:
    from ltxrt.engines.bundle import FileRecord

NOTES = ".verified.json"
SCHEMA = 1
LIMIT = 1 << 20  # bytes of a file of notes
ENTRIES = 1000  # notes that are kept; a bundle has some tens of files
LARGE = 500 << 20  # bytes from which hashing is announced, because it takes half a second or more
PIECE = 4 << 20  # bytes that are hashed at a time
# A file that changed this recently may change again with the same time of change: file clocks are coarse.
SETTLED = 2 * 10**9  # nanoseconds

State = tuple[int, ...]
Hashed = Callable[[int], None]
Notes = dict[str, tuple[State, str]]  # path in the bundle → state, SHA-256

_log = logging.getLogger(__name__)
_memory: dict[State, str] = {}


def check(
    root: Path, records: Iterable[FileRecord], afresh: bool = False, hashed: Hashed | None = None
) -> None:
    """Raise BundleError for the first of `records`, files of the bundle `root`, that differs from its record.

    `afresh` ignores notes of earlier hashes; `hashed` is told how many bytes of a file were hashed.
    """
    for record in records:
        found = digest(inside(root, record.path), root, afresh, hashed)
        if found != record.sha256:
            raise BundleError(
                f"{root}: {record.path} has SHA-256 {found[:12]}…, bundle.json says {record.sha256[:12]}…; "
                "the file was changed or damaged: copy the bundle again or run ltx-export onnx again"
            )


def digest(path: Path, root: Path, afresh: bool = False, hashed: Hashed | None = None) -> str:
    """SHA-256 of a regular file in the bundle `root`, as `files.sha256`; the file is read only if it was not
    hashed in its present state. Raises BundleError if it cannot be read."""
    try:
        with open_regular(path) as file:
            return _digest(file, path, root, afresh, hashed)
    except NotRegularError:
        raise BundleError(f"{path}: is not a regular file") from None
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror or error})") from error


def forget() -> None:
    """Forget the hashes in this process's memory; notes in files are kept."""
    _memory.clear()


def _digest(file: BufferedReader, path: Path, root: Path, afresh: bool, hashed: Hashed | None) -> str:
    status = os.fstat(file.fileno())
    state, name = _state(status), path.relative_to(root).as_posix()
    if not afresh:
        known = _memory.get(state) or _noted(root, name, state)
        if known:
            _memory[state] = known
            return known
    if status.st_size >= LARGE and hashed is None:
        _log.info("checking %.200r (%s), once for this copy", name, file_size(status.st_size))
    found = _hash(file, hashed)
    if _state(os.fstat(file.fileno())) == state and time.time_ns() - max(state[-2:]) > SETTLED:
        _memory[state] = found
        _note(root, name, state, found)
    return found


def _hash(file: BufferedReader, hashed: Hashed | None) -> str:
    found, buffer, done = hashlib.sha256(), memoryview(bytearray(PIECE)), 0
    while count := file.readinto(buffer):
        found.update(buffer[:count])
        done += count
        if hashed is not None:
            hashed(done)
    return found.hexdigest()


def _state(status: os.stat_result) -> State:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _places(root: Path) -> list[Path]:
    """Files for notes, in order of preference."""
    places = [root / NOTES]
    try:
        name = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:32]
        return [*places, cache_folder() / f"{name}.json"]
    except (OSError, RuntimeError):  # the user has no home folder
        return places


def _noted(root: Path, name: str, state: State) -> str | None:
    notes = (_read(place).get(name) for place in _places(root))
    return next((note[1] for note in notes if note is not None and note[0] == state), None)


def _note(root: Path, name: str, state: State, found: str) -> None:
    """Note a hash in the first file that can be written, if any."""
    for place in _places(root):
        notes = {n: note for n, note in _read(place).items() if n != name and (root / n).is_file()}
        kept = list(notes.items())[1 - ENTRIES :]
        try:
            if place.parent != root:
                place.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(place) as temporary:
                text = json.dumps({"schema": SCHEMA, "files": {**dict(kept), name: (state, found)}}, indent=1)
                temporary.write_text(text, encoding="utf-8")
        except (OSError, InputError):
            continue
        return


def _read(place: Path) -> Notes:
    """The notes in a file; none if it cannot be read or is malformed."""
    try:
        data = json.loads(read_small(place, LIMIT))
        if data["schema"] != SCHEMA:
            return {}
        return {str(name): _valid(state, found) for name, (state, found) in data["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _valid(state: Any, found: Any) -> tuple[State, str]:
    if not (all(type(n) is int for n in state) and re.fullmatch("[0-9a-f]{64}", found)):
        raise ValueError("not a note")
    return tuple(state), found
