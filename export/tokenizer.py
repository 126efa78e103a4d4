"""The tokenizer as one tokenizer.json, which the runtime reads without transformers."""

from __future__ import annotations

import shutil
from pathlib import Path

from ltxrt.engines.errors import CheckpointError, MissingPackageError


def write_tokenizer_json(folder: Path, target: Path) -> None:
    """Copy `folder`/tokenizer.json to `target`, or convert `folder`/spiece.model.

    transformers converts SentencePiece exactly; its T5 class sets the normaliser and the end token.
    """
    ready = folder / "tokenizer.json"
    if ready.is_file():
        shutil.copyfile(ready, target)
        return
    try:
        from transformers import T5TokenizerFast  # type: ignore[attr-defined]  # exported lazily
    except ImportError as error:
        raise MissingPackageError("transformers", "export") from error
    try:
        tokenizer = T5TokenizerFast.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # the library raises whatever its parsers raise
        raise CheckpointError(f"{folder}: no readable T5 tokenizer in it ({error})") from error
    target.write_text(tokenizer.backend_tokenizer.to_str(), encoding="utf-8")
