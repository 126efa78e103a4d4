"""Which files of a repository make a checkpoint, a text encoder or another part: those and no others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ltxrt.engines.errors import CheckpointError, InputError
from ltxrt.engines.progress import Report
from ltxrt.export.checkpoint.fields import load_json
from ltxrt.export.checkpoint.folder import STEMS, shard_names
from ltxrt.export.hub.repository import Repository

MODEL_INDEX = "model_index.json"  # of a diffusers repository
_TOKENIZER = (
    "tokenizer.json", "spiece.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
)  # fmt: skip
_NOT_CHECKPOINTS = ("upscaler", "upsampler", "lora")


@dataclass(frozen=True)
class Selection:
    """Files of a repository, and what of it is opened: a file, a folder, or "" for all of it."""

    repository: Repository
    files: tuple[str, ...]
    opened: str

    @property
    def bytes(self) -> int:
        """The files' size together."""
        return sum(self.repository.files[name] for name in self.files)

    @property
    def missing(self) -> int:
        """The bytes of them that the cache has not."""
        known = self.repository
        return sum(known.files[name] for name in self.files if known.cached(name) is None)


def checkpoint(repository: Repository, path: str, report: Report) -> Selection:
    """The files of the checkpoint at `path`, which may be left out where the repository holds one alone."""
    if path and path != MODEL_INDEX:
        return part(repository, path, (), report)
    singles = [name for name in repository.files if "/" not in name and name.endswith(".safetensors")]
    singles = [name for name in singles if not any(word in name.lower() for word in _NOT_CHECKPOINTS)]
    folders = MODEL_INDEX in repository.files
    if path == MODEL_INDEX and not folders:
        raise repository.no_such(path)
    if folders and (path or not singles):
        return _indexed(repository, "", report)
    if len(singles) == 1 and not folders:
        return part(repository, singles[0], (), report)
    repo = repository.reference.repo
    if not singles:
        raise CheckpointError(f"{repo}: has neither a .safetensors file nor {MODEL_INDEX} to open")
    choices = ", ".join([*sorted(singles), *[MODEL_INDEX] * folders])
    raise InputError(
        f"{repo}: holds several checkpoints; name one, as in {repo}:{singles[0]}; there are {choices}"
    )


def part(repository: Repository, path: str, folders: Sequence[str], report: Report) -> Selection:
    """The file or folder `path` of a repository; without one its `folders`, or else its top."""
    if path in repository.files:
        beside = path.rpartition("/")[0]
        config = f"{beside}/config.json" if beside else "config.json"
        needed = [config] if config in repository.files and config != path else []
        return Selection(repository, (path, *needed), path)
    if path and not repository.folder(path):
        raise repository.no_such(path)
    if not path and any(repository.folder(name) for name in folders):
        names = [name for folder in folders for name in _folder(repository, folder, report, optional=True)]
        return Selection(repository, tuple(names), "")
    if f"{path}/{MODEL_INDEX}" in repository.files:
        return _indexed(repository, f"{path}/", report)
    return Selection(repository, tuple(_folder(repository, path, report)), path)


def _indexed(repository: Repository, start: str, report: Report) -> Selection:
    """A diffusers folder: the parts that its index lists as [library, class]."""
    index = f"{start}{MODEL_INDEX}"
    listed = [
        name for name, value in load_json(repository.fetch(index, report)).items() if isinstance(value, list)
    ]
    folders = [f"{start}{name}" for name in listed if name.isidentifier()]
    names = [name for folder in folders for name in _folder(repository, folder, report, optional=True)]
    return Selection(repository, (index, *names), start.rstrip("/"))


def _folder(repository: Repository, folder: str, report: Report, optional: bool = False) -> list[str]:
    """The files of one part: its config, its tokenizer, its weights in safetensors."""
    start = f"{folder}/" if folder else ""
    if optional and not repository.folder(folder):
        return []
    wanted = (
        "config.json",
        "scheduler_config.json",
        *_TOKENIZER,
        *(f"tokenizer/{name}" for name in _TOKENIZER),
    )
    small = [start + name for name in wanted if start + name in repository.files]
    weights = _weights(repository, start, report)
    if not weights and f"{start}config.json" in repository.files:
        where = f"{repository.reference.repo}{':' if folder else ''}{folder}"
        raise CheckpointError(f"{where}: has no weights as .safetensors; give a repository that has")
    if not small:
        raise repository.no_such(folder)
    return [*small, *weights]


def _weights(repository: Repository, start: str, report: Report) -> list[str]:
    for stem in STEMS:
        index, single = f"{start}{stem}.safetensors.index.json", f"{start}{stem}.safetensors"
        if index in repository.files:
            shards = shard_names(load_json(repository.fetch(index, report)), index)
            missing = [start + name for name in shards if start + name not in repository.files]
            if missing:
                raise CheckpointError(f"{repository.file(index)}: names {missing[0]}, which is not there")
            return [index, *(start + name for name in shards)]
        if single in repository.files:
            return [single]
    return []
