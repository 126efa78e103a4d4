"""T5's tokenizer as tokenizer.json; a SentencePiece model is converted by transformers."""

from __future__ import annotations

from pathlib import Path

from ltxrt.engines.errors import CheckpointError, LtxrtError, MissingPackageError
from ltxrt.engines.parsing.tokenizer_file import no_panic
from ltxrt.export.ltxv.open import Checkpoint
from ltxrt.export.tokenizer import write_tokenizer_json

SPECIAL = {"<pad>": 0, "</s>": 1}


def write_t5(checkpoint: Checkpoint, target: Path) -> None:
    """The checkpoint's tokenizer. Raises CheckpointError for one that is not T5's or not the encoder's."""
    folder, encoder = checkpoint.tokenizer, checkpoint.text_encoder
    if folder is None or encoder is None:
        raise LtxrtError("a text encoder was opened without its tokenizer")
    write(folder, target, encoder.config.vocab_size)


def write(folder: Path, target: Path, vocab_size: int) -> None:
    """`folder`'s tokenizer, for an encoder with `vocab_size` rows in its embedding."""
    write_tokenizer_json(folder, target, vocab_size, "T5", SPECIAL, _converted)


def _converted(folder: Path) -> str:
    """tokenizer.json of a spiece.model. transformers converts SentencePiece exactly; its T5 class sets the
    normaliser and the end token."""
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
