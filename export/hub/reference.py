"""Names of files on a model hub: `owner/name`, with a revision and a file or folder where they are wanted.

    Lightricks/LTX-Video:ltxv-2b-0.9.6-dev-04-25.safetensors
    Lightricks/LTX-Video@v1:text_encoder
    https://huggingface.co/Lightricks/LTX-Video/blob/main/ltxv-2b-0.9.6-dev-04-25.safetensors

Knows texts and paths; the hub itself is `repository`'s.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from ltxrt.engines.errors import InputError

_NAME = r"[A-Za-z0-9][\w.-]{0,95}"
_ID = re.compile(rf"(?P<repo>{_NAME}/{_NAME})(?:@(?P<revision>[^:@\s]+))?(?::(?P<path>.+))?")
_PAGE = re.compile(
    rf"/(?P<repo>{_NAME}/{_NAME})(?:/(?:blob|resolve|tree|raw)/(?P<revision>[^/]+)(?:/(?P<path>.+))?)?/?"
)
_SITES = ("huggingface.co", "www.huggingface.co", "hf.co")
_FILES = (
    ".safetensors",
    ".ckpt",
    ".pt",
    ".pth",
    ".bin",
    ".gguf",
    ".json",
    ".onnx",
)  # of no repository's name


@dataclass(frozen=True)
class Reference:
    """A repository, or a file or folder `path` in it; `revision` "" is the newest."""

    repo: str
    path: str = ""
    revision: str = ""

    def __str__(self) -> str:
        revision = self.revision[:12] if re.fullmatch("[0-9a-f]{40}", self.revision) else self.revision
        return self.repo + (f"@{revision}" if revision else "") + (f":{self.path}" if self.path else "")

    @property
    def name(self) -> str:
        """The last part of what it names."""
        return (self.path or self.repo).rsplit("/", 1)[-1]


def parse(text: str) -> Reference | None:
    """The reference that `text` is, None for a path of this machine.

    What exists here is a path, and so is what begins with a folder that exists here or ends as a file of
    weights does. Raises InputError for a page of another site and for a path that leaves its repository.
    """
    if "://" in text:
        return _page(text)
    found = _ID.fullmatch(text)
    if found is None or Path(text).exists() or Path(text.split("/")[0]).is_dir():
        return None
    repo, revision, path = found["repo"], found["revision"] or "", found["path"] or ""
    if not path and repo.lower().endswith(_FILES):
        return None
    if "@" in path and not revision:
        path, _, revision = path.rpartition("@")
    return _checked(Reference(repo, path.strip("/"), revision), text)


def _page(text: str) -> Reference:
    """The reference of a page's address, as a browser shows it."""
    address = urlsplit(text)
    if address.scheme == "hf":
        found = _ID.fullmatch(text.removeprefix("hf://")) or _PAGE.fullmatch(text.removeprefix("hf:/"))
    else:
        own = urlsplit(os.environ.get("HF_ENDPOINT", "")).netloc
        found = _PAGE.fullmatch(unquote(address.path)) if address.netloc in (*_SITES, own) else None
    if found is None:
        raise InputError(
            f"{text}: is no page of a model on the hub; give OWNER/NAME:FILE, the page's "
            "address on the hub, or a file of this machine"
        )
    revision = found["revision"] or ""
    path = (found["path"] or "").strip("/")
    return _checked(Reference(found["repo"], path, "" if revision == "main" else revision), text)


def _checked(reference: Reference, text: str) -> Reference:
    parts = PurePosixPath(reference.path).parts
    if ".." in parts or "\\" in reference.path or not reference.path.isprintable():
        raise InputError(f"{text}: the part after ':' must be a file or folder of the repository")
    return reference


def cached_as(path: Path) -> Reference | None:
    """What a path in a hub cache (`models--OWNER--NAME/snapshots/COMMIT/…`) is a copy of; None elsewhere."""
    parts = path.absolute().parts  # not resolved: files there are links to blobs
    for index in range(1, len(parts) - 1):
        repo = parts[index - 1].removeprefix("models--").replace("--", "/", 1)
        if parts[index] == "snapshots" and parts[index - 1].startswith("models--") and "/" in repo:
            return Reference(repo, "/".join(parts[index + 2 :]), parts[index + 1])
    return None
