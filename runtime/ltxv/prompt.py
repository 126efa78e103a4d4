"""Encodes prompts to token ids of the T5 text encoder, and to its hidden states."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tokenizers
from numpy.typing import NDArray

from ltxrt.engines.backend import Engine
from ltxrt.engines.errors import BundleError, InputError, setting
from ltxrt.engines.parsing import json_input, tokenizer_file
from ltxrt.engines.parsing.tokenizer_file import no_panic
from ltxrt.runtime.sampling.numerics import check_finite

# Component → its stage: what runs for all videos of several before the first one.
BEFORE_ALL = {"text_encoder": "text encoder"}

PAD_ID = 0
EOS_ID = 1


@dataclass(frozen=True)
class Tokens:
    """A prompt as ids: input_ids and attention_mask, each (1, T) int64, and how many were truncated."""

    input_ids: NDArray[np.int64]
    attention_mask: NDArray[np.int64]
    truncated: int


@dataclass(frozen=True)
class Text:
    """Hidden states (P,T,C) and mask (P,T) bool: of the negative prompt, if any, and the positive."""

    context: NDArray[np.float32]
    mask: NDArray[np.bool_]

    def rows(self, branches: Sequence[str]) -> list[int]:
        """Which prompt each branch reads: the perturbed one reads the positive."""
        return [0 if branch == "negative" else len(self.context) - 1 for branch in branches]


class Tokenizer:
    """T5's tokenizer from a bundle's tokenizer.json. Threads may share one.

    `sha256` is the file's record in the bundle. Raises BundleError for another file, or one that is not a T5
    tokenizer's (`ltxrt.engines.parsing.tokenizer_file`).
    """

    def __init__(self, path: Path, sha256: str | None = None) -> None:
        self._tokenizer = _load(path, sha256)

    def encode(self, prompt: str, max_tokens: int, required: bool = True) -> Tokens:
        """The prompt without surrounding whitespace, then the end token, truncated and padded to
        `max_tokens`.

        Raises InputError if it is `required` and empty (a negative prompt may be empty).
        """
        if max_tokens < 2:
            raise InputError(
                f"{setting('max_tokens')} {max_tokens}: must be at least 2, one for the end of the prompt"
            )
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
        kept = [*ids[: max_tokens - 1], EOS_ID]
        input_ids = np.full((1, max_tokens), PAD_ID, np.int64)
        input_ids[0, : len(kept)] = kept
        attention_mask = (np.arange(max_tokens) < len(kept)).astype(np.int64)[None]
        return Tokens(input_ids, attention_mask, max(0, len(ids) + 1 - max_tokens))


def key(masked: bool, tokens: Sequence[Tokens]) -> tuple[object, ...]:
    """What decides the hidden states, on one engine."""
    return masked, *(one.input_ids.tobytes() for one in tokens)


def encode(masked: bool, tokens: Sequence[Tokens], encoder: Engine) -> Text:
    """Hidden states of the prompts, cut to the longest one if the padding is masked everywhere."""
    mask = np.concatenate([one.attention_mask for one in tokens])
    ids = np.concatenate([one.input_ids for one in tokens])
    if masked:
        longest = int(mask.sum(axis=1).max())
        ids, mask = ids[:, :longest], mask[:, :longest]
    outputs = encoder(input_ids=ids, attention_mask=mask if masked else np.ones_like(mask))
    context = outputs["hidden_states"]
    check_finite(context, "text_encoder", "the prompt")
    return Text(context, mask.astype(np.bool_))


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
