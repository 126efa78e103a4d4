import base64
import hashlib
import json
from functools import partial

import numpy as np
import pytest
import tokenizers
from tokenizers import models, pre_tokenizers, processors
from transformers import T5TokenizerFast

from ltxrt.engines.errors import BundleError, InputError
from ltxrt.engines.parsing import tokenizer_file
from ltxrt.runtime.ltxv.prompt import Tokenizer

PIECES = ["▁", "▁waves", "▁break", "▁on", "▁a", "▁rocky", "▁shore", "▁the", ".", ",", "s", "e", "a", "r", "o"]
MAX_TOKENS = 12
PROMPTS = [
    "waves break on a rocky shore",
    "  waves,  break \n on the\tshore.  ",
    "unknown ünïcode 🌊 words",
    "waves </s> break <pad> on",
    "",
    "e",
]


def build(path, eos="</s>", pad="<pad>"):
    """A T5-like tokenizer.json: Unigram, Metaspace, an end token appended by the post-processor."""
    vocab = [(pad, 0.0), (eos, 0.0), ("<unk>", -20.0)]
    vocab += [(piece, -float(i + 2)) for i, piece in enumerate(PIECES)]
    tokenizer = tokenizers.Tokenizer(models.Unigram(vocab, unk_id=2, byte_fallback=False))
    tokenizer.add_special_tokens([pad, eos, "<unk>"])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {eos}", pair=None, special_tokens=[(eos, 1)]
    )
    tokenizer.enable_truncation(3)  # settings stored in the file must not matter
    tokenizer.enable_padding(length=5)
    tokenizer.save(str(path))
    return path


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return build(tmp_path_factory.mktemp("tokenizer") / "tokenizer.json")


@pytest.fixture(scope="module")
def reference(file):
    return T5TokenizerFast(tokenizer_object=tokenizers.Tokenizer.from_file(str(file)), extra_ids=0)


def expect(reference, prompt, max_tokens=MAX_TOKENS):
    encoded = reference(
        prompt.strip(), padding="max_length", max_length=max_tokens, truncation=True, return_tensors="np"
    )
    return encoded["input_ids"], encoded["attention_mask"]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_ids_and_mask_are_those_of_transformers(file, reference, prompt):
    tokens = Tokenizer(file).encode(prompt, MAX_TOKENS, required=False)
    for ours, theirs in zip((tokens.input_ids, tokens.attention_mask), expect(reference, prompt)):
        assert ours.shape == (1, MAX_TOKENS) and ours.dtype == np.int64
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("words", range(MAX_TOKENS - 3, MAX_TOKENS + 4))
def test_truncation_keeps_the_end_token_and_is_reported(file, reference, words):
    prompt = " ".join(["waves"] * words)
    tokens = Tokenizer(file).encode(prompt, MAX_TOKENS)
    np.testing.assert_array_equal(tokens.input_ids, expect(reference, prompt)[0])
    np.testing.assert_array_equal(tokens.attention_mask, expect(reference, prompt)[1])
    assert tokens.truncated == max(0, words + 1 - MAX_TOKENS)
    assert 1 in tokens.input_ids


def test_surrounding_whitespace_does_not_matter_and_case_does(file):
    encode = partial(Tokenizer(file).encode, max_tokens=MAX_TOKENS)
    np.testing.assert_array_equal(encode(" waves\n").input_ids, encode("waves").input_ids)
    assert (encode("Waves").input_ids != encode("waves").input_ids).any()


@pytest.mark.parametrize("prompt", ["", "  \n\t"])
def test_an_empty_prompt_is_refused_but_an_empty_negative_prompt_is_not(file, prompt):
    tokenizer = Tokenizer(file)
    with pytest.raises(InputError, match="the prompt is empty; describe the video"):
        tokenizer.encode(prompt, MAX_TOKENS)
    tokens = tokenizer.encode(prompt, MAX_TOKENS, required=False)
    assert tokens.input_ids.tolist() == [[1] + [0] * (MAX_TOKENS - 1)]
    assert tokens.attention_mask.sum() == 1 and tokens.truncated == 0


def test_too_few_tokens(file):
    with pytest.raises(InputError, match="max_tokens 1: must be at least 2"):
        Tokenizer(file).encode("waves", 1)


def test_a_missing_file(tmp_path):
    with pytest.raises(BundleError, match="no such tokenizer file"):
        Tokenizer(tmp_path / "tokenizer.json")


@pytest.mark.parametrize("content", [b"", b"{", json.dumps({"a": 1}).encode(), b"\xff\xfe\x00"])
def test_a_file_that_is_no_tokenizer(tmp_path, content):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(BundleError, match=r"not a readable tokenizer\.json"):
        Tokenizer(path)


def test_a_tokenizer_of_another_model(tmp_path):
    with pytest.raises(BundleError, match="not a T5 tokenizer"):
        Tokenizer(build(tmp_path / "tokenizer.json", eos="[SEP]"))


def test_a_file_that_is_too_large(monkeypatch, file):
    monkeypatch.setattr(tokenizer_file, "MAX_BYTES", 100)
    with pytest.raises(BundleError, match="larger than"):
        Tokenizer(file)


def test_another_file_than_the_recorded_one_is_not_parsed(file, tmp_path):
    content = file.read_bytes()
    Tokenizer(file, hashlib.sha256(content).hexdigest())
    changed = tmp_path / "tokenizer.json"
    changed.write_bytes(content.replace(b"rocky", b"rockx"))
    Tokenizer(changed)
    with pytest.raises(BundleError, match="it is not what the bundle records"):
        Tokenizer(changed, hashlib.sha256(content).hexdigest())


def replace(pattern, content=" "):
    return {"type": "Replace", "pattern": pattern, "content": content}


def charsmap(data):
    return {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(data).decode()}


@pytest.mark.parametrize(
    "part, value, message",
    [
        ("normalizer", {"type": "Prepend", "prepend": "x" * 10_000_000}, "not one of a T5 tokenizer"),
        ("normalizer", replace({"Regex": "(a+)+$"}), "not one of a T5 tokenizer"),
        ("normalizer", replace({"String": ""}), "not one of a T5 tokenizer"),
        ("normalizer", replace({"Regex": r"\s+"}, "x" * 1000), "not one of a T5 tokenizer"),
        ("normalizer", {"type": "Sequence", "normalizers": [{"type": "NFC"}] * 17}, "not a list of up to 16"),
        (
            "normalizer",
            {"type": "Sequence", "normalizers": [charsmap(b"")] * 2},
            "one of them a character map",
        ),
        (
            "normalizer",
            charsmap(b"\x04\0\0\0" + b"\0" * 4 + b"x" * 1000),
            "more than 128 bytes of a character",
        ),
        ("normalizer", charsmap(b"\xff\xff\xff\xffabc"), "character map is damaged"),
        ("normalizer", charsmap(b"\x04\0\0\0" + b"\0" * 4 + b"\xff\0"), "character map is damaged"),
        ("normalizer", {"type": "Precompiled", "precompiled_charsmap": "A*=="}, "not base64"),
        ("pre_tokenizer", {"type": "Split", "pattern": {"Regex": "(a+)+$"}}, "not one of a T5 tokenizer"),
        ("pre_tokenizer", {"type": "Metaspace", "replacement": "xx"}, "not one of a T5 tokenizer"),
        ("model", {"type": "BPE", "vocab": {}, "merges": []}, "its model is 'BPE', T5's is Unigram"),
        ("model", {"type": "Unigram", "vocab": [["", 0.0]], "unk_id": 0}, "must have 1 to 200 entries"),
        ("model", {"type": "Unigram", "vocab": [["a", 1e300]]}, "score of 'a' is out of bounds"),
        ("model", {"type": "Unigram", "vocab": [["a", 0.0]], "unk_id": 7}, "unk_id 7 is not a piece"),
        ("added_tokens", [{"id": 0, "content": ""}], "added token's text"),
        ("added_tokens", [{"id": 10**15, "content": "a"}], "added token's id"),
    ],
)
def test_what_no_t5_tokenizer_holds_is_refused_before_the_library_sees_it(
    file, tmp_path, monkeypatch, part, value, message
):
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps({**json.loads(file.read_text()), part: value}))
    monkeypatch.setattr(tokenizers.Tokenizer, "from_str", None, raising=False)
    with pytest.raises(BundleError, match=message):
        Tokenizer(path)


def test_a_damaged_character_map_is_an_error_and_no_panic(file, tmp_path):
    """A trie of any bytes: the library's Rust code panics, which is no Exception."""
    path = tmp_path / "tokenizer.json"
    data = json.loads(file.read_text())
    trie = np.random.default_rng(0).integers(0, 2**32, 64, np.uint32).tobytes()
    for texts in (b"a\0", b"\xc3\xa4\0" * 50):
        data["normalizer"] = charsmap(len(trie).to_bytes(4, "little") + trie + texts)
        path.write_text(json.dumps(data))
        try:
            Tokenizer(path).encode("waves break " + "".join(map(chr, range(32, 400))), 64)
        except BundleError as error:
            assert len(str(error)) < 500


def test_a_panic_is_an_error(file, monkeypatch):
    class Panic(BaseException):
        """As pyo3's PanicException."""

    class Panics:
        def encode(self, *_, **__):
            raise Panic("index out of bounds")

    tokenizer = Tokenizer(file)
    monkeypatch.setattr(tokenizer, "_tokenizer", Panics())
    with pytest.raises(BundleError, match=r"tokenizer failed on the prompt .index out of bounds"):
        tokenizer.encode("waves", MAX_TOKENS)
    monkeypatch.setattr(Panics, "encode", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        tokenizer.encode("waves", MAX_TOKENS)
