"""The tokenizer as one tokenizer.json, which the runtime reads without transformers."""

from __future__ import annotations

import shutil
from pathlib import Path

import tokenizers

from ltxrt.engines.errors import CheckpointError, MissingPackageError
from ltxrt.engines.parsing import json_input, tokenizer_file
from ltxrt.engines.parsing.tokenizer_file import no_panic

PAD, EOS = ("<pad>", 0), ("</s>", 1)


def write_tokenizer_json(folder: Path, target: Path, vocab_size: int) -> None:
    """Copy `folder`/tokenizer.json to `target`, or convert `folder`/spiece.model.

    transformers converts SentencePiece exactly; its T5 class sets the normaliser and the end token. Raises
    CheckpointError unless it is a T5 tokenizer whose ids fit an embedding of `vocab_size` rows: otherwise
    only the deployment machine would fail, at its first prompt.
    """
    ready = folder / "tokenizer.json"
    if ready.is_file():
        if ready.stat().st_size > tokenizer_file.MAX_BYTES:
            limit = f"{tokenizer_file.MAX_BYTES >> 20} MiB"
            raise CheckpointError(f"{ready}: larger than {limit}, which no tokenizer.json of T5 is")
        shutil.copyfile(ready, target)
    else:
        target.write_text(_converted(folder), encoding="utf-8")
    try:
        text = tokenizer_file.checked(json_input.read_bytes(target, tokenizer_file.MAX_BYTES))
        with no_panic():
            tokenizer = tokenizers.Tokenizer.from_str(text)
    except ValueError as error:
        raise CheckpointError(f"{ready}: not a readable tokenizer.json ({error}); fetch it again") from error
    for token, number in (PAD, EOS):
        if tokenizer.token_to_id(token) != number:
            raise CheckpointError(
                f"{folder}: not a T5 tokenizer, whose {token} is {number}; "
                "give the folder of T5 v1.1 with the tokenizer it came with"
            )
    ids = max(tokenizer.get_vocab().values()) + 1
    if ids > vocab_size:
        raise CheckpointError(
            f"{folder}: the tokenizer has {ids} ids but the text encoder embeds {vocab_size}; "
            "give the tokenizer that the text encoder came with"
        )


def _converted(folder: Path) -> str:
    try:
        from transformers import T5TokenizerFast
    except ImportError as error:
        raise MissingPackageError("transformers", "export") from error
    try:
        with no_panic():
            tokenizer = T5TokenizerFast.from_pretrained(str(folder), local_files_only=True)
            return str(tokenizer.backend_tokenizer.to_str())
    except ValueError as error:
        # The library's message is about other formats that it tries next, and packages for them.
        raise CheckpointError(
            f"{folder}: no readable T5 tokenizer in it: spiece.model is damaged or of another kind; "
            "fetch it again"
        ) from error
