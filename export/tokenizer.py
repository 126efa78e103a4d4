"""The tokenizer as one tokenizer.json, which the runtime reads without transformers."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import tokenizers

from ltxrt.engines.errors import CheckpointError
from ltxrt.engines.parsing import json_input, tokenizer_file
from ltxrt.engines.parsing.tokenizer_file import no_panic


def write_tokenizer_json(
    folder: Path,
    target: Path,
    ids: int,
    kind: str,
    special: Mapping[str, int],
    convert: Callable[[Path], str],
) -> None:
    """Copy `folder`/tokenizer.json to `target`, or write what `convert` makes of the folder's other files.

    Raises CheckpointError unless it is a tokenizer of this `kind`, by its `special` tokens' ids, whose ids
    fit an embedding of `ids` rows: otherwise only the deployment machine would fail, at its first prompt.
    """
    ready = folder / "tokenizer.json"
    if ready.is_file():
        if ready.stat().st_size > tokenizer_file.MAX_BYTES:
            limit = f"{tokenizer_file.MAX_BYTES >> 20} MiB"
            raise CheckpointError(f"{ready}: larger than {limit}, which no tokenizer.json of {kind} is")
        shutil.copyfile(ready, target)
    else:
        target.write_text(convert(folder), encoding="utf-8")
    try:
        text = tokenizer_file.checked(json_input.read_bytes(target, tokenizer_file.MAX_BYTES))
        with no_panic():
            tokenizer = tokenizers.Tokenizer.from_str(text)
    except ValueError as error:
        raise CheckpointError(f"{ready}: not a readable tokenizer.json ({error}); fetch it again") from error
    for token, number in special.items():
        if tokenizer.token_to_id(token) != number:
            raise CheckpointError(
                f"{folder}: not a {kind} tokenizer, whose {token} is {number}; "
                "give the folder of the text encoder with the tokenizer that it came with"
            )
    found = max(tokenizer.get_vocab().values()) + 1
    if found > ids:
        raise CheckpointError(
            f"{folder}: the tokenizer has {found} ids but the text encoder embeds {ids}; "
            "give the tokenizer that the text encoder came with"
        )
