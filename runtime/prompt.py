"""A prompt to the token ids of the T5 text encoder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tokenizers
from numpy.typing import NDArray

from ltxrt.engines.errors import BundleError, InputError

PAD_ID = 0
EOS_ID = 1
MAX_FILE_BYTES = 64 * 2**20  # T5's file is 2.4 MB


@dataclass(frozen=True)
class Tokens:
    """A prompt as ids: input_ids and attention_mask, each (1, T) int64, and how many tokens did not fit."""

    input_ids: NDArray[np.int64]
    attention_mask: NDArray[np.int64]
    truncated: int


class Tokenizer:
    """T5's tokenizer from a bundle's tokenizer.json, padding and truncating to `max_tokens`."""

    def __init__(self, path: Path, max_tokens: int) -> None:
        if max_tokens < 2:
            raise InputError(f"--max-tokens {max_tokens}: must be at least 2, one for the end of the prompt")
        self.max_tokens = max_tokens
        self._tokenizer = _load(path)

    def encode(self, prompt: str, required: bool = True) -> Tokens:
        """The prompt without surrounding whitespace, then the end token, then padding.

        Raises InputError where `required` and nothing is left to encode (a negative prompt may be empty).
        """
        text = prompt.strip()
        if required and not text:
            raise InputError(
                "the prompt is empty; describe the video, for example 'waves break on a rocky shore'"
            )
        ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        kept = [*ids[: self.max_tokens - 1], EOS_ID]
        input_ids = np.full((1, self.max_tokens), PAD_ID, np.int64)
        input_ids[0, : len(kept)] = kept
        attention_mask = (np.arange(self.max_tokens) < len(kept)).astype(np.int64)[None]
        return Tokens(input_ids, attention_mask, max(0, len(ids) + 1 - self.max_tokens))


def _load(path: Path) -> tokenizers.Tokenizer:
    if not path.is_file():
        raise BundleError(f"{path}: no such tokenizer file; export the bundle again")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise BundleError(f"{path}: larger than {MAX_FILE_BYTES >> 20} MiB, which no tokenizer.json is")
    try:
        tokenizer = tokenizers.Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # the library raises bare Exception
        raise BundleError(f"{path}: not a readable tokenizer.json ({error})") from error
    if (tokenizer.token_to_id("<pad>"), tokenizer.token_to_id("</s>")) != (PAD_ID, EOS_ID):
        raise BundleError(f"{path}: not a T5 tokenizer, whose <pad> is {PAD_ID} and </s> is {EOS_ID}")
    tokenizer.no_truncation()  # the file may carry settings of its own
    tokenizer.no_padding()
    return tokenizer
