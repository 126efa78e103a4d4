"""How a video was made, as one JSON document in its metadata, from which it can be made again.

The document has the request as it was given, every setting as the bundle's preset completed it, the files it
was made from by name and hash, the hashes of the weights, and what ran them. It is read as untrusted input:
settings by the tables that read any request, names of files without folders, all of bounded size.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ltxrt.engines.backend import MOST_THREADS
from ltxrt.engines.errors import InputError
from ltxrt.engines.host import package_version
from ltxrt.engines.parsing import json_input
from ltxrt.engines.parsing.text import printable
from ltxrt.runtime.media.formats import Encoding
from ltxrt.runtime.request import json_form, kinds
from ltxrt.runtime.request.fields import SETTINGS
from ltxrt.runtime.request.request import Request

KEY = "ltxrt"  # of the document in a video's metadata
FORMAT = 1
MEDIA = {"image": "image", "condition": "conditions", "input_video": "input_video", "noise": "noise"}
_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Source:
    """A file that a video was made from: the setting that it was given as, its name, hash and size in bytes.

    `size` is None for pixels that a program gave, whose hash is of their bytes; `frame` and `strength` are a
    condition's.
    """

    setting: str
    name: str
    sha256: str | None
    size: int | None
    frame: int = 0
    strength: float = 1.0


@dataclass(frozen=True)
class Record:
    """What a video says of how it was made.

    request: the settings that were given, and completed: all of them, both as JSON; sources: the files;
    precisions and weights: the precision of each component, and the hash of its graph and weights; backend,
    threads, many_calls: what ran them; place, cores: on what, and how many threads None stood for.
    """

    file: str
    request: Mapping[str, Any]
    completed: Mapping[str, Any]
    sources: tuple[Source, ...]
    precisions: Mapping[str, str]
    weights: Mapping[str, str]
    backend: str
    threads: int | None
    cores: int | None
    place: str
    many_calls: bool
    encoding: Encoding | None

    def pinned(self, otherwise: Mapping[str, Any]) -> dict[str, Any]:
        """The settings that were left to the preset, where it would now make something else of them.

        `otherwise` is `completed` of the same request by the bundle at hand.
        """
        left = {name: value for name, value in self.completed.items() if name not in self.request}
        return {name: value for name, value in left.items() if otherwise.get(name) != value}


def document(
    request: Request,
    completed: Mapping[str, Any],
    inputs: Sequence[Mapping[str, Any]],
    components: Mapping[str, Mapping[str, str]],
    ran: Mapping[str, Any],
) -> str:
    """The document, as JSON text.

    completed: every setting's value by its name, as JSON; inputs: what `provenance.inputs` returned;
    components: precision and sha256 of each component; ran: backend, threads and what else rounds otherwise.
    """
    data = {
        "format": FORMAT,
        "software": f"ltxrt {package_version('ltxrt') or 'of an unknown version'}",
        "request": given(request),
        "completed": dict(completed),
        "sources": list(inputs),
        "components": dict(components),
        "ran": dict(ran),
    }
    return json.dumps(data, ensure_ascii=True)


def given(request: Request) -> dict[str, Any]:
    """The settings that a request gives, as JSON, but for the files."""
    left = {name: row.default for name, row in SETTINGS.items() if row.kind in (kinds.FILE, kinds.CONDITIONS)}
    bare = Request(**{**vars(request), **left})
    return json_form.write(bare)


def read(path: Path | str) -> Record:
    """What the video at `path`, a file or a folder of frames, says of how it was made.

    Raises InputError if it says nothing, or nothing that can be read.
    """
    from ltxrt.runtime.media.formats import METADATA_BYTES, read_metadata  # load Pillow

    metadata = read_metadata(path)
    if KEY not in metadata:
        raise InputError(
            f"{path}: does not say how it was made; another program or an older version wrote it, or it was "
            "written without metadata"
        )
    if len(metadata[KEY]) > METADATA_BYTES:
        raise InputError(f"{path}: what it says of how it was made is longer than any that is written here")
    try:
        return _record(str(path), json_input.parse(metadata[KEY]), metadata.get("encoding"))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        why = str(error) if isinstance(error, ValueError) else "it is not of the form that is written here"
        if isinstance(error, KeyError):
            why = f"{error} is missing or unknown in it"
        raise InputError(f"{path}: what it says of how it was made cannot be read: {why}") from error


def _record(file: str, data: Any, encoding: str | None) -> Record:
    if data["format"] != FORMAT:
        raise ValueError(f"its format is {kinds.shown(data['format'])}; this version reads {FORMAT}")
    request, completed, ran = (_mapping(data[name]) for name in ("request", "completed", "ran"))
    for settings in (request, completed):
        _check(settings)
    components = {str(name): _mapping(one) for name, one in _mapping(data["components"]).items()}
    threads, cores = (_count(ran.get(name)) for name in ("threads", "cores"))
    return Record(
        file,
        request,
        completed,
        tuple(_source(row) for row in _list(data["sources"])),
        {name: str(one["precision"]) for name, one in components.items()},
        {name: str(one["sha256"]) for name, one in components.items()},
        str(ran["backend"]),
        threads,
        cores,
        printable(str(ran.get("place", ""))),
        bool(ran.get("many_calls")),
        None if encoding is None else _encoding(json_input.parse(encoding)),
    )


def _check(settings: Mapping[str, Any]) -> None:
    """Raise InputError for values that a request does not take, ValueError for files, which are sources."""
    values = json_form.given(settings)
    if files := [name for name in values if SETTINGS[name].kind in (kinds.FILE, kinds.CONDITIONS)]:
        raise ValueError(f"{files[0]} stands among its settings")
    Request(**{"prompt": "of a record", **values})


def _source(row: Any) -> Source:
    name, digest, size = row["name"], row["sha256"], row.get("bytes")
    if not isinstance(name, str) or Path(name).name != name or "\\" in name or "\0" in name:
        raise ValueError("a source has a name with a folder")
    if digest is not None and not (isinstance(digest, str) and _SHA256.fullmatch(digest)):
        raise ValueError("a source has a hash that is none")
    if size is not None and not (kinds.is_whole(size) and size >= 0):
        raise ValueError("a source has a size that is none")
    frame, strength = row.get("frame", 0), row.get("strength", 1.0)
    if not kinds.is_whole(frame) or not kinds.is_number(strength):
        raise ValueError("a source has a place or a strength that is none")
    return Source(MEDIA[row["for"]], name, digest, size, frame, float(strength))


def _encoding(data: Any) -> Encoding:
    return Encoding(data["codec"], data["crf"], data["bit_depth"])


def _count(value: Any) -> int | None:
    if value is not None and not (kinds.is_whole(value) and 1 <= value <= MOST_THREADS):
        raise ValueError(f"{kinds.shown(value)} stands where a number of threads is expected")
    return None if value is None else int(value)


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{kinds.shown(value)} stands where an object is expected")
    return value


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list) or len(value) > kinds.LONGEST_LIST:
        raise ValueError(f"{kinds.shown(value)} stands where a list is expected")
    return value
