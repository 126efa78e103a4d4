"""A small but real tokenizer in T5's format: a Unigram model over `▁`-marked words, with T5's special ids.

The vocabulary is the printable ASCII characters plus a short list of common words and endings, so that
it fits a tiny test model; more is not needed, because ids only index an embedding of random rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from ltxrt.engines.errors import InputError
from ltxrt.engines.storage.files import atomic_write

SPECIAL = ("<pad>", "</s>", "<unk>")
_CHARACTERS = "".join(chr(c) for c in range(33, 127))
_WORDS = """\
the a an of and to in on at with by for from is are was be it its as over under near into through
man woman cat dog bird horse child people hand face eye hair red blue green white black bright dark
small large old young slow fast walk walks walking run runs running stand stands sit sits look looks
camera shot scene view close wide light sun moon sky cloud rain snow water sea river lake wave
mountain forest tree leaf grass flower field road street city house room door window table
car boat train fire smoke glass wood stone metal golden morning evening night day summer winter
motion still video worst quality inconsistent blurry jittery distorted"""
_ENDINGS = ["s", "ed", "ing", "er", "ly", "es", "en", "th", "er", "on", "an", "re", "in", "at", "or", "st"]


def write_tokenizer(folder: Path, vocab_size: int) -> None:
    """Write `folder`/tokenizer.json: ids <pad> 0, </s> 1, <unk> 2; `</s>` is appended to every text."""
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(folder / "tokenizer.json") as temporary:
        temporary.write_text(unigram(_vocabulary(vocab_size)).to_str(pretty=True), encoding="utf-8")


def unigram(pieces: list[tuple[str, float]], more: Sequence[normalizers.Normalizer] = ()) -> Tokenizer:
    """A tokenizer of T5's kind from pieces with log-probabilities, SPECIAL first; `more` normalises last."""
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=SPECIAL.index("<unk>")))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip(), *more]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", SPECIAL.index("</s>"))]
    )
    tokenizer.add_special_tokens(list(SPECIAL))
    return tokenizer


def _vocabulary(vocab_size: int) -> list[tuple[str, float]]:
    """Pieces with log-probabilities: whole words before their letters, cut to `vocab_size`."""
    letters = ["▁", *_CHARACTERS]
    words = dict.fromkeys([f"▁{w}" for w in _WORDS.split()] + _ENDINGS)
    needed = len(SPECIAL) + len(letters)
    if vocab_size < needed:
        raise InputError(f"vocab_size {vocab_size}: the synthetic tokenizer needs at least {needed}")
    pieces = (
        [(p, 0.0) for p in SPECIAL] + [(c, -8.0) for c in letters] + [(w, -6.0) for w in words if len(w) > 1]
    )
    return pieces[:vocab_size]
