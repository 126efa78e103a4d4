"""A repository of the hub at one commit: its files with their sizes, fetched into the hub's own cache.

huggingface_hub does the talking: its cache, its tokens (`hf auth login`, HF_TOKEN), mirrors (HF_ENDPOINT) and
HF_HUB_OFFLINE apply. Without a connection, what the cache holds is used.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ltxrt.engines.description import file_size
from ltxrt.engines.errors import CheckpointError, InputError, LtxrtError, MissingPackageError
from ltxrt.engines.host import package_version
from ltxrt.engines.progress import Progress, Report
from ltxrt.engines.storage.files import inside
from ltxrt.export.hub.failures import UnreachableError, asking
from ltxrt.export.hub.reference import Reference

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_LIBRARY = "ltxrt"  # who asks
_ANSWER = 20.0  # seconds that the hub may take to list a repository
_LISTED = 12  # files that a message shows
_LARGEST_SMALL = 64 << 20  # bytes of what is no weights; the largest in use, a tokenizer, has some MB
_LONGEST_HEADER = 32 << 20  # bytes; the reader of the copy refuses less than that


@dataclass(frozen=True)
class Repository:
    """The files of `reference.repo` at the commit `commit`, sizes in bytes.

    `snapshot` is the cache's folder where the hub could not be asked: the files are those that it holds.
    """

    reference: Reference
    commit: str
    files: Mapping[str, int]
    licence: str
    snapshot: Path | None = None

    def file(self, path: str) -> Reference:
        """A file of this repository at this commit."""
        return Reference(self.reference.repo, path, self.commit)

    def folder(self, path: str) -> list[str]:
        """The files under a folder."""
        return [name for name in self.files if name.startswith(f"{path}/")]

    def no_such(self, path: str) -> InputError:
        """The refusal of a path that the repository does not have, with those that are near."""
        known = list(self.files)
        near = difflib.get_close_matches(path, known, 4, 0.5) or [
            n for n in known if n.endswith(".safetensors")
        ]
        where = "the part of it in the cache" if self.snapshot else str(self.reference.repo)
        listed = ", ".join(near[:_LISTED])
        return InputError(
            f"{self.reference.repo}:{path}: {where} has no such file; "
            + (f"there are {listed}" if listed else "it has no .safetensors file at all")
        )

    def cached(self, path: str) -> Path | None:
        """The file in the cache, if it is there."""
        if self.snapshot is not None:
            return self.snapshot / path
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(self.reference.repo, path, revision=self.commit)
        return Path(found) if isinstance(found, str) else None

    def fetch(self, path: str, report: Report) -> Path:
        """The file, downloaded into the cache unless it is there. Raises LtxrtError where that fails, and
        CheckpointError for a config or tokenizer of a size that none has."""
        if not path.endswith(".safetensors") and self.files[path] > _LARGEST_SMALL:
            size = file_size(self.files[path])
            raise CheckpointError(
                f"{self.file(path)}: has {size}, and is no config or tokenizer of that size"
            )
        there = self.cached(path)
        if there is not None:
            return there
        from huggingface_hub import hf_hub_download

        stage, total = f"downloading {path}", self.files[path]
        report(Progress(stage, 0, total, "byte"))
        with asking(self.file(path)):
            bar: Any = _reporting(stage, total, report)
            got = hf_hub_download(
                self.reference.repo,
                path,
                revision=self.commit,
                tqdm_class=bar,
                library_name=_LIBRARY,
                library_version=package_version(_LIBRARY),
            )
        report(Progress(stage, total, total, "byte"))
        return Path(got)


def open_repository(reference: Reference) -> Repository:
    """List a repository, or what the cache has of it where the hub cannot be asked.

    Raises InputError for one that is not there, is gated or has no such revision, LtxrtError where there is
    no connection and no copy.
    """
    try:
        import huggingface_hub  # noqa: F401
    except ImportError as error:
        raise MissingPackageError("huggingface_hub", "hub") from error
    try:
        with asking(reference):
            info = _api().model_info(
                reference.repo, revision=reference.revision or None, files_metadata=True, timeout=_ANSWER
            )
    except UnreachableError as error:
        return _from_cache(reference, error)
    files = {one.rfilename: one.size or 0 for one in info.siblings or [] if _is_inside(one.rfilename)}
    card = info.card_data.to_dict() if info.card_data else {}
    licence = card.get("license_name") or card.get("license") or ""
    return Repository(
        reference, info.sha or reference.revision, files, licence if isinstance(licence, str) else ""
    )


def _is_inside(name: str) -> bool:
    """Whether a listed name stays in its folder; others are as if they were not there."""
    return (
        not name.startswith("/") and "\\" not in name and ".." not in name.split("/") and name.isprintable()
    )


def _from_cache(reference: Reference, error: LtxrtError) -> Repository:
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repos = [
            r
            for r in scan_cache_dir(cache_folder()).repos
            if r.repo_type == "model" and r.repo_id == reference.repo
        ]
    except CacheNotFound:
        repos = []
    wanted = reference.revision
    known = [one for repo in repos for one in repo.revisions]
    for revision in sorted(known, key=lambda one: one.last_modified, reverse=True):
        if wanted in revision.refs or revision.commit_hash.startswith(wanted):  # without one the last
            root = revision.snapshot_path
            files = {f.file_path.relative_to(root).as_posix(): f.size_on_disk for f in revision.files}
            return Repository(reference, revision.commit_hash, files, "", root)
    raise error


def header_only(repository: Repository, paths: Iterable[str], folder: Path, report: Report) -> Path:
    """A copy of the repository in `folder` whose weights have their headers alone, the rest being holes.

    It opens like a checkpoint of which no tensor is read, for some kilobytes of traffic. Laid out as the
    cache, whose names tell the release. Returns the root of the files.
    """
    from huggingface_hub.errors import SafetensorsParsingError

    repo = repository.reference.repo
    root = folder / f"models--{repo.replace('/', '--')}" / "snapshots" / (repository.commit or "main")
    for path in paths:
        target = inside(root, path)
        target.parent.mkdir(parents=True, exist_ok=True)
        if not path.endswith(".safetensors"):
            target.write_bytes(repository.fetch(path, report).read_bytes())
            continue
        there = repository.cached(path)
        if there is not None:
            _copy_header(there, target)
            continue
        report(Progress(f"reading the header of {path}"))
        with asking(repository.file(path)):
            try:
                found = _api().parse_safetensors_file_metadata(repo, path, revision=repository.commit)
            except SafetensorsParsingError as error:
                raise CheckpointError(f"{repository.file(path)}: is not a safetensors file") from error
        _write_header(target, found)
    return root


def _copy_header(there: Path, target: Path) -> None:
    with there.open("rb") as source, target.open("wb") as file:
        length = source.read(8)
        file.write(length + source.read(min(int.from_bytes(length, "little"), _LONGEST_HEADER)))
        file.truncate(there.stat().st_size)


def _write_header(target: Path, found: Any) -> None:
    entries: dict[str, Any] = {"__metadata__": found.metadata} if found.metadata else {}
    for name, tensor in found.tensors.items():
        entries[name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": tensor.data_offsets}
    text = json.dumps(entries).encode()
    with target.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(file.tell() + max((int(t.data_offsets[1]) for t in found.tensors.values()), default=0))


def _api() -> HfApi:
    from huggingface_hub import HfApi

    return HfApi(library_name=_LIBRARY, library_version=package_version(_LIBRARY))


def _reporting(stage: str, total: int, report: Report) -> type:
    """The class that huggingface_hub makes a progress bar of: it draws nothing and tells `report`."""
    from tqdm import tqdm

    class Bar(tqdm):
        def __init__(self, *_: Any, initial: int = 0, **options: Any) -> None:
            super().__init__(disable=True)
            self.done = float(initial)
            # hf_xet has a second bar for what travels, which is less than what is made of it
            self.counts = "downloading bytes" not in str(options.get("desc"))

        def update(self, n: float | None = 1) -> None:
            self.done += n or 0
            if self.counts:
                report(Progress(stage, min(self.done, total), total, "byte"))

    return Bar


def cache_folder() -> Path:
    """Where downloads are kept: HF_HUB_CACHE, or a folder in HF_HOME."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def existing_parent(folder: Path) -> Path:
    """The nearest folder that is there, which tells the space of its disk."""
    found = folder.absolute()
    while not found.exists() and found != found.parent:
        found = found.parent
    return found
