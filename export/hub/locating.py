"""What was given to a command, on this machine: paths as they are, names of the hub downloaded first."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ltxrt.engines.description import file_size
from ltxrt.engines.errors import LtxrtError
from ltxrt.engines.progress import Progress, Report
from ltxrt.export import families
from ltxrt.export.checkpoint.part import Checkpoint
from ltxrt.export.hub import repository as hub
from ltxrt.export.hub import selection
from ltxrt.export.hub.failures import endpoint
from ltxrt.export.hub.reference import Reference, parse
from ltxrt.export.hub.repository import Repository
from ltxrt.export.hub.selection import Selection

Say = Callable[[str], None]


@dataclass(frozen=True)
class Wanted:
    """What is exported: the checkpoint and what is given beside it by `Source.name`, as the user wrote them.

    `components` are those that were chosen, none where all are wanted.
    """

    checkpoint: str
    sources: Mapping[str, Any]
    version: str | None = None
    components: Sequence[str] = ()


@dataclass(frozen=True)
class Located:
    """The same as paths of this machine."""

    checkpoint: Path
    sources: Mapping[str, Any]


def locate(wanted: Wanted, report: Report, say: Say) -> Located:
    """Download what is named on the hub, and the parts that go with a checkpoint of the hub.

    Before anything large travels, `say` gets lines with the files, their sizes and the licence. Raises
    InputError for names that the hub does not have, LtxrtError if it cannot be reached or the disk is full.
    """
    chosen = {name: _each(given) for name, given in wanted.sources.items()}
    found = parse(wanted.checkpoint)
    main: Selection | None = None
    lines: list[str] = []
    if found is not None:
        report(Progress(f"asking the hub about {found.repo}"))
        main = selection.checkpoint(hub.open_repository(found), found.path, report)
        with peeked(main, wanted.version, report) as opened:
            added = companions(opened, wanted.components, chosen)
            lines = [f"{opened.source}: {opened.version.name}; {opened.version.licence}"]
        chosen |= added
    own = main.repository if main else None
    picked = {name: [_pick(name, one, own, report) for one in given] for name, given in chosen.items()}
    everything = [
        one for one in [main, *(x for xs in picked.values() for x in xs)] if isinstance(one, Selection)
    ]
    if everything:
        for line in (*lines, *announced(everything)):
            say(line)
        _check_space(sum(one.missing for one in everything))
    sources = {name: [_fetched(one, report) for one in given] for name, given in picked.items()}
    multiple = {source.name for source in families.sources() if source.multiple}
    return Located(
        Path(wanted.checkpoint) if main is None else _fetched(main, report),
        {n: (tuple(paths) if n in multiple else paths[0]) for n, paths in sources.items() if paths},
    )


def _each(given: Any) -> list[str]:
    """One or several as a list of texts."""
    if given is None:
        return []
    return [str(one) for one in given] if isinstance(given, list | tuple) else [str(given)]


def companions(
    opened: Checkpoint, components: Sequence[str], given: Mapping[str, Any]
) -> dict[str, list[str]]:
    """The parts on the hub that go with a checkpoint, without those that are `given` or not exported."""
    found = families.family(opened.family).companions(opened, components)
    return {name: list(references) for name, references in found.items() if not given.get(name)}


@contextmanager
def peeked(chosen: Selection, version: str | None, report: Report) -> Iterator[Checkpoint]:
    """The checkpoint that would be downloaded, opened from its headers; no tensor can be read."""
    with tempfile.TemporaryDirectory(prefix="ltxrt-") as folder:
        root = hub.header_only(chosen.repository, chosen.files, Path(folder), report)
        path = root / chosen.opened
        yield families.of(path).open_checkpoint(path, {}, version, False)


def pick(name: str, reference: Reference, own: Repository | None, report: Report) -> Selection:
    """The files of source `name`, from the checkpoint's `own` repository where it has them too."""
    source = next(source for source in families.sources() if source.name == name)
    if own is not None and not reference.revision:
        same = reference.path in own.files if reference.path else all(map(own.folder, source.folders))
        if same and source.folders:
            return selection.part(own, reference.path, source.folders, report)
    return selection.part(hub.open_repository(reference), reference.path, source.folders, report)


def _pick(name: str, text: str, own: Repository | None, report: Report) -> Selection | Path:
    reference = parse(text)
    return Path(text) if reference is None else pick(name, reference, own, report)


def announced(chosen: Sequence[Selection]) -> list[str]:
    """Lines on the files, how much of them must be downloaded, and the licences that their pages state."""
    lines = []
    for one in chosen:
        names = [one.opened] if one.opened in one.files else [f"{len(one.files)} files"]
        there = "" if one.missing else ", in the cache"
        lines.append(f"  {one.repository.file('')}: {names[0]}, {file_size(one.bytes)}{there}")
    total, folder = sum(one.missing for one in chosen), hub.cache_folder()
    pages = {one.repository.reference.repo: one.repository.licence for one in chosen}
    for repo, licence in pages.items():
        stated = f"{licence}: " if licence else ""
        lines.append(f"  licence of {repo}: {stated}{endpoint()}/{repo}")
    if total:
        free = shutil.disk_usage(hub.existing_parent(folder)).free
        lines.append(f"  downloading {file_size(total)} to {folder}, which has {file_size(free)} free")
    return lines


def _check_space(needed: int) -> None:
    folder = hub.cache_folder()
    free = shutil.disk_usage(hub.existing_parent(folder)).free
    if needed > free:
        raise LtxrtError(
            f"{folder} has {file_size(free)} free and the download takes {file_size(needed)}; make room, or "
            "set HF_HOME to a folder on a larger disk"
        )


def _fetched(chosen: Selection | Path, report: Report) -> Path:
    if isinstance(chosen, Path):
        return chosen
    root = chosen.repository.snapshot
    for name in chosen.files:
        got = chosen.repository.fetch(name, report)
        root = got.parents[name.count("/")]
    if root is None:
        raise LtxrtError(f"{chosen.repository.reference}: nothing to download")
    return root / chosen.opened
