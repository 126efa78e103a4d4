"""A prompt to the token ids of the T5 text encoder."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tokenizers
from numpy.typing import NDArray

from ltxrt.engines.errors import BundleError, InputError, setting
from ltxrt.engines.parsing import json_input, tokenizer_file
from ltxrt.engines.parsing.tokenizer_file import no_panic

PAD_ID = 0
EOS_ID = 1


@dataclass(frozen=True)
class Tokens:
    """A prompt as ids: input_ids and attention_mask, each (1, T) int64, and how many tokens did not fit."""

    input_ids: NDArray[np.int64]
    attention_mask: NDArray[np.int64]
    truncated: int


class Tokenizer:
    """T5's tokenizer from a bundle's tokenizer.json, padding and truncating to `max_tokens`.

    `sha256` is what the bundle records of the file. Raises BundleError for a file that is another, or that
    holds what no T5 tokenizer does (`ltxrt.engines.parsing.tokenizer_file`).
    """

    def __init__(self, path: Path, max_tokens: int, sha256: str | None = None) -> None:
        if max_tokens < 2:
            raise InputError(
                f"{setting('max_tokens')} {max_tokens}: must be at least 2, one for the end of the prompt"
            )
        self.max_tokens = max_tokens
        self._tokenizer = _load(path, sha256)

    def encode(self, prompt: str, required: bool = True) -> Tokens:
        """The prompt without surrounding whitespace, then the end token, then padding.

        Raises InputError where `required` and nothing is left to encode (a negative prompt may be empty).
        """
        text = prompt.strip()
        if required and not text:
            raise InputError(
                "the prompt is empty; describe the video, for example 'waves break on a rocky shore'"
            )
        try:
            with no_panic():
                ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        except ValueError as error:
            raise BundleError(
                f"the bundle's tokenizer failed on the prompt ({error}); "
                "copy the bundle again or export it again"
            ) from error
        kept = [*ids[: self.max_tokens - 1], EOS_ID]
        input_ids = np.full((1, self.max_tokens), PAD_ID, np.int64)
        input_ids[0, : len(kept)] = kept
        attention_mask = (np.arange(self.max_tokens) < len(kept)).astype(np.int64)[None]
        return Tokens(input_ids, attention_mask, max(0, len(ids) + 1 - self.max_tokens))


def _load(path: Path, sha256: str | None) -> tokenizers.Tokenizer:
    if not path.exists():
        raise BundleError(f"{path}: no such tokenizer file; export the bundle again")
    try:
        content = json_input.read_bytes(path, tokenizer_file.MAX_BYTES)
        if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
            raise ValueError("it is not what the bundle records")
        with no_panic():
            tokenizer = tokenizers.Tokenizer.from_str(tokenizer_file.checked(content))
    except (OSError, ValueError) as error:
        raise BundleError(
            f"{path}: not a readable tokenizer.json ({error}); copy the bundle again or export it again"
        ) from error
    if (tokenizer.token_to_id("<pad>"), tokenizer.token_to_id("</s>")) != (PAD_ID, EOS_ID):
        raise BundleError(f"{path}: not a T5 tokenizer, whose <pad> is {PAD_ID} and </s> is {EOS_ID}")
    return tokenizer
