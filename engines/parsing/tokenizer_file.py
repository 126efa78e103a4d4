"""Checks a tokenizer.json before the library reads it: only a T5 tokenizer is accepted, with bounds.

The library builds whatever the file describes: a pattern with unbounded backtracking, gigabytes of text
before every prompt, damaged maps that end in a panic of its Rust code. T5's tokenizers are all of one kind,
Unigram pieces over `▁`-marked words, so only that is accepted, and of it only the parts that turn a prompt
into ids; the runtime does the rest (templates, decoders, truncation, padding) itself. Knows JSON, not the
library.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

from ltxrt.engines.parsing import json_input
from ltxrt.engines.parsing import schema as strict
from ltxrt.engines.parsing.schema import Most, Within

MAX_BYTES = 16 << 20  # bytes of the file; T5's has 2.4 MB
PIECES = 1 << 20  # pieces; T5 has 32,000
ADDED = 4096  # added tokens; T5 has 100 and its special ones
STEPS = 16  # steps of normalising or splitting in total
DEPTH = 4  # levels of nested sequences
LONGEST = 128  # bytes that one character may be normalised to; Unicode's own rules have up to 33
PATTERNS = (" {2,}", r"\s+", r"\s{2,}")  # regular expressions that converters write; none backtracks

_Piece = Annotated[str, Most(200, least=1)]
_Id = Annotated[int, Within(0, PIECES + ADDED)]
_SCHEMES = ("always", "first", "never")


def checked(content: bytes) -> str:
    """The parts of a T5 tokenizer.json that turn text into ids, as JSON for the library.

    Raises ValueError with a phrase for the end of a sentence if these parts contain anything else.
    """
    data = json_input.parse(content)
    if not isinstance(data, dict):
        raise ValueError("it is not a JSON object")
    return json.dumps(
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": _added(data.get("added_tokens", [])),
            "normalizer": _steps(data.get("normalizer"), "normalizers", _normalizer),
            "pre_tokenizer": _steps(data.get("pre_tokenizer"), "pretokenizers", _pre_tokenizer),
            "post_processor": None,
            "decoder": None,
            "model": _model(data.get("model")),
        }
    )


@contextmanager
def no_panic() -> Iterator[None]:
    """Raise ValueError for whatever the library raises in the block; a Rust panic is not an Exception."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        raise ValueError(f"{error!s:.200}") from error


def _read(kind: Any, value: Any, where: str) -> Any:
    return strict.from_json(kind, value, where)


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{where} is {type(value).__name__}, not an object")
    return value


def _list(value: Any, most: int, where: str) -> list[Any]:
    if not isinstance(value, list) or len(value) > most:
        raise ValueError(f"{where} is not a list of up to {most} entries")
    return value


def _added(value: Any) -> list[dict[str, Any]]:
    flags = ("single_word", "lstrip", "rstrip", "normalized", "special")
    tokens = []
    for item in _list(value, ADDED, "added_tokens"):
        token = _object(item, "an added token")
        tokens.append(
            {
                "id": _read(_Id, token.get("id"), "an added token's id"),
                "content": _read(_Piece, token.get("content"), "an added token's text"),
                **{flag: _read(bool, token.get(flag, False), flag) for flag in flags},
            }
        )
    return tokens


def _model(value: Any) -> dict[str, Any]:
    model = _object(value, "the model")
    if model.get("type", "Unigram") != "Unigram":
        raise ValueError(f"its model is {model['type']!r:.40}, T5's is Unigram")
    vocab = _list(model.get("vocab"), PIECES, "the vocabulary")
    for entry in vocab:
        if not isinstance(entry, list) or len(entry) != 2 or type(entry[1]) not in (int, float):
            raise ValueError(f"{entry!r:.60} is not a piece with its score")
        _read(_Piece, entry[0], "a piece")
        if not abs(entry[1]) <= 1e6:
            raise ValueError(f"the score of {entry[0]!r:.60} is out of bounds")
    unknown = model.get("unk_id")
    if unknown is not None and not (type(unknown) is int and 0 <= unknown < len(vocab)):
        raise ValueError(f"its unk_id {unknown!r:.40} is not a piece")
    fallback = _read(bool, model.get("byte_fallback", False), "byte_fallback")
    return {"type": "Unigram", "unk_id": unknown, "vocab": vocab, "byte_fallback": fallback}


def _steps(value: Any, inner: str, one: Callable[[dict[str, Any]], dict[str, Any]]) -> dict[str, Any] | None:
    """The steps of a sequence, flattened, or a single step; `inner` is the key of a sequence's steps."""
    if value is None:
        return None
    steps = [one(step) for step in _flat(value, inner, DEPTH)]
    if len(steps) > STEPS or sum(step["type"] == "Precompiled" for step in steps) > 1:
        raise ValueError(f"it has {len(steps)} {inner}; T5 has some 3, one of them a character map")
    return {"type": "Sequence", inner: steps}


def _flat(value: Any, inner: str, depth: int) -> list[dict[str, Any]]:
    step = _object(value, f"one of the {inner}")
    if step.get("type") != "Sequence":
        return [step]
    if depth == 0:
        raise ValueError(f"its {inner} are nested deeper than {DEPTH}")
    return [s for item in _list(step.get(inner), STEPS, inner) for s in _flat(item, inner, depth - 1)]


def _normalizer(step: dict[str, Any]) -> dict[str, Any]:
    match step:
        case {"type": "Precompiled", "precompiled_charsmap": str(charsmap)}:
            _character_map(charsmap)
            return {"type": "Precompiled", "precompiled_charsmap": charsmap}
        case {"type": "NFC" | "NFD" | "NFKC" | "NFKD" as form}:
            return {"type": form}
        case {"type": "Strip", "strip_left": bool(left), "strip_right": bool(right)}:
            return {"type": "Strip", "strip_left": left, "strip_right": right}
        case {"type": "Replace", "pattern": {"Regex": str(regex)}, "content": str(content)}:
            if regex in PATTERNS and len(content) <= 1:
                return {"type": "Replace", "pattern": {"Regex": regex}, "content": content}
    raise ValueError(f"its normaliser {step!r:.80} is not one of a T5 tokenizer")


def _pre_tokenizer(step: dict[str, Any]) -> dict[str, Any]:
    match step:
        case {"type": "Whitespace" | "WhitespaceSplit" as kind}:
            return {"type": kind}
        case {"type": "Metaspace", "replacement": str(mark)} if len(mark) == 1:
            old = "always" if step.get("add_prefix_space", True) is True else "never"
            scheme = step.get("prepend_scheme", old)
            if scheme in _SCHEMES:
                split = _read(bool, step.get("split", True), "split")
                return {"type": "Metaspace", "replacement": mark, "prepend_scheme": scheme, "split": split}
    raise ValueError(f"its splitting {step!r:.80} is not one of a T5 tokenizer")


def _character_map(text: str) -> None:
    """SentencePiece's format: the size of a trie in bytes, the trie, and zero-terminated texts."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("its character map is not base64") from None
    if not data:
        return
    size = int.from_bytes(data[:4], "little")
    if len(data) < 4 or size % 4 or size == 0 or 4 + size > len(data):
        raise ValueError("its character map is damaged")
    texts = data[4 + size :]
    try:
        texts.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("its character map is damaged") from None
    if max(map(len, texts.split(b"\0"))) > LONGEST:
        raise ValueError(f"its character map makes more than {LONGEST} bytes of a character")
