"""The files that a run of `ltx-run` writes: their names, which must be new and each another's."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ltxrt.engines.bundle import Bundle
from ltxrt.engines.errors import InputError, setting
from ltxrt.engines.terminal import warn
from ltxrt.runtime.cli.given import Asked
from ltxrt.runtime.media.write import Encoding, check_not_read, check_output

LONGEST_SLUG = 60  # characters
_LONGEST_BYTES = 150  # of a slug: a file's name has up to 255, and temporary names are longer
_FIELDS = re.compile(r"\{(seed|n|prompt)\}")
_BRACES = re.compile(r"\{[^{}]*\}?")  # of what may have been meant as one of these
_RESERVED = re.compile(r"con|prn|aux|nul|com[0-9]|lpt[0-9]")  # names of devices on Windows


@dataclass(frozen=True)
class Existing:
    """What becomes of outputs that exist; without either they are refused."""

    overwrite: bool
    skip: bool

    def check(self) -> None:
        """Raise InputError unless one of the two is given at most."""
        if self.overwrite and self.skip:
            raise InputError(
                f"{setting('overwrite')} and {setting('skip_existing')} exclude each other; give one of them"
            )


def named(
    template: Path, asked: Sequence[Asked], existing: Existing, encoding: Encoding
) -> list[tuple[Asked, Path]]:
    """The videos to make, each with its output: `template` with its {seed}, {n} and {prompt} filled in.

    Raises InputError for names that are used twice or cannot be written, and for outputs that exist, unless
    they are to be overwritten or skipped.
    """
    existing.check()
    if unknown := _BRACES.search(_FIELDS.sub("", str(template))):
        warn(
            f"note: {unknown[0]} stays as it is in {setting('output')}; {{seed}}, {{n}} and {{prompt}} are "
            "filled in"
        )
    paths = [_named(template, one, n, len(asked)) for n, one in enumerate(asked, 1)]
    _check_distinct(template, paths)
    found = [(one, path) for one, path in zip(asked, paths) if not (existing.skip and _is_there(path))]
    read = {
        file for one, _ in found for file in one.request.files()
    }  # by any of the videos, also a later one
    for _, path in found:
        check_not_read(path, read)
        check_output(path, encoding)
        if not existing.overwrite and (_is_there(path) or path.is_symlink()):
            raise InputError(
                f"{setting('output')} {path}: exists; give another name, or give {setting('overwrite')}"
            )
    if len(found) < len(asked):
        warn(f"note: {len(asked) - len(found)} of {len(asked)} outputs exist and are left as they are")
    return found


def _is_there(path: Path) -> bool:
    """Whether there is a video: a file, or a folder with frames."""
    return path.is_file() or (path.is_dir() and any(path.iterdir()))


def check_preview(
    path: Path, videos: Sequence[tuple[Asked, Path]], bundle: Bundle, existing: Existing
) -> None:
    """Raise InputError for a preview that cannot be made of the bundle, or would overwrite another file."""
    for one, output in videos:
        if path.absolute() == output.absolute():
            raise InputError(f"{setting('preview')} {path}: is the output too; give another name")
        check_not_read(path, one.request.files(), "preview")
    from ltxrt.runtime import preview as previews  # loads Pillow

    previews.check_path(path, existing.overwrite)
    previews.of(bundle)


def slug(prompt: str) -> str:
    """A prompt as a part of a file's name: its letters and digits in lower case, dashes between words."""
    import unicodedata  # for names with the prompt in them alone

    words = re.sub(r"[\W_]+", "-", unicodedata.normalize("NFKC", prompt).lower()).strip("-")
    cut = words[: LONGEST_SLUG + 1]
    if len(words) > LONGEST_SLUG:
        cut = cut[:LONGEST_SLUG] if "-" not in cut else cut.rpartition("-")[0]
    short = cut.encode()[:_LONGEST_BYTES].decode(errors="ignore").strip("-") or "video"
    return f"{short}-" if _RESERVED.fullmatch(short) else short


def _named(template: Path, one: Asked, n: int, count: int) -> Path:
    """{n} has the digits of the last, so that names sort in order."""
    texts = {
        "seed": str(one.request.seed),
        "n": str(n).zfill(len(str(count))),
        "prompt": slug(one.request.prompt),
    }
    return Path(_FIELDS.sub(lambda field: texts[field[1]], str(template)))


def _check_distinct(template: Path, found: Sequence[Path]) -> None:
    if len(set(found)) == len(found):
        return
    if len(set(found)) == 1:
        raise InputError(
            f"{setting('output')} {template}: is one name for {len(found)} videos; put {{seed}}, {{n}} or "
            f"{{prompt}} in it, as in {template.stem}-{{seed}}{template.suffix}"
        )
    twice = next(path for path in found if found.count(path) > 1)
    raise InputError(f"{setting('output')} {template}: gives {twice} to two videos; put {{n}} in it")
