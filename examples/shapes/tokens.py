"""The example's tokenizer: a Unigram model over the words of its captions, in the Hugging Face layout."""

from __future__ import annotations

import json
from pathlib import Path

import networks
import numpy as np
import scenes
import torch
from tokenizers import Tokenizer, normalizers
from torch import Tensor

from ltxrt.parity.synthetic.tokenizer import SPECIAL, unigram

LONGEST = 24  # tokens of any caption


def make() -> Tokenizer:
    """Ids <pad> 0, </s> 1, <unk> 2, the captions' words, and characters for all other words."""
    pieces = [(p, 0.0) for p in SPECIAL] + [(f"▁{w}", -6.0) for w in scenes.words()]
    pieces += [(c, -9.0) for c in ["▁", *map(chr, range(33, 127))]]
    if len(pieces) > networks.TEXT.vocab_size:
        raise ValueError(f"{len(pieces)} pieces do not fit a vocabulary of {networks.TEXT.vocab_size}")
    return unigram(pieces, [normalizers.Lowercase()])


def encode(tokenizer: Tokenizer, texts: list[str]) -> tuple[Tensor, Tensor]:
    """Ids and mask (B,T), T the longest of them; longer than LONGEST is cut, as the pipeline cuts."""
    found = [e.ids[:LONGEST] for e in tokenizer.encode_batch(texts)]
    longest = max(map(len, found))
    ids = np.zeros((len(found), longest), np.int64)
    mask = np.zeros_like(ids)
    for row, one in enumerate(found):
        ids[row, : len(one)], mask[row, : len(one)] = one, 1
    return torch.from_numpy(ids), torch.from_numpy(mask)


def save(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    make().save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "T5TokenizerFast",
        "pad_token": "<pad>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
