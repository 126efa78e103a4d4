"""A T5 tokenizer folder becomes one tokenizer.json with the same ids."""

import json
import shutil

import pytest
import sentencepiece
from tokenizers import Tokenizer as Fast
from transformers import AutoTokenizer

from ltxrt.engines.errors import CheckpointError
from ltxrt.export.ltxv.tokenizer import write as write_tokenizer_json
from ltxrt.runtime.ltxv.prompt import Tokenizer

PROMPTS = [
    "A wave breaks on the shore.",
    "  two  spaces ",
    "naïve café, 3 × 4",
    "",
    "unknown 漢字 here",
    "a tab\tand\nlines",
    "ﬁne ａ ligature",
]
EMBEDDED = 200  # rows of the text encoder


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """Nothing but spiece.model."""
    path = tmp_path_factory.mktemp("bare")
    text = path / "text.txt"
    words = ["a", "wave", "breaks", "on", "the", "shore", "two", "spaces", "naive", "cafe", "here", "fine"]
    text.write_text("\n".join(f"{a} {b} {c}." for a in words for b in words for c in words[:3]))
    sentencepiece.SentencePieceTrainer.train(
        input=str(text), model_prefix=str(path / "spiece"), vocab_size=70, pad_id=0, eos_id=1, unk_id=2,
        bos_id=-1, minloglevel=2, hard_vocab_limit=False,
    )  # fmt: skip
    text.unlink()
    (path / "spiece.vocab").unlink()
    return path


@pytest.fixture(scope="module")
def published(bare, tmp_path_factory):
    """As the published text encoder's: spiece.model with its configs and the ids after its pieces."""
    path = shutil.copytree(bare, tmp_path_factory.mktemp("published") / "tokenizer")
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(path / "spiece.model")).vocab_size()
    extra = {f"<extra_id_{i}>": pieces + 99 - i for i in range(100)}
    special = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    special["additional_special_tokens"] = list(extra)
    config = {"tokenizer_class": "T5Tokenizer", "extra_ids": 100, "model_max_length": 512, "legacy": True}
    for name, content in {
        "special_tokens_map": special,
        "tokenizer_config": config | special,
        "added_tokens": extra,
    }.items():
        (path / f"{name}.json").write_text(json.dumps(content))
    return path


@pytest.fixture(params=["bare", "published"])
def folder(request):
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_ids_are_those_of_the_references(folder, tmp_path, prompt):
    write_tokenizer_json(folder, tmp_path / "tokenizer.json", EMBEDDED)
    ours = Tokenizer(tmp_path / "tokenizer.json").encode(prompt, 40, required=False)
    theirs = AutoTokenizer.from_pretrained(folder, tokenizer_type="t5")(
        prompt.strip(), padding="max_length", max_length=40, truncation=True, return_tensors="np"
    )
    assert ours.input_ids.tolist() == theirs["input_ids"].tolist()
    assert ours.attention_mask.tolist() == theirs["attention_mask"].tolist()
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "spiece.model"))
    wanted = [*pieces.encode(prompt), 1]
    assert ours.truncated == 0 and ours.input_ids[0, : len(wanted)].tolist() == wanted
    assert ours.attention_mask.sum() == len(wanted)


def test_a_ready_file_is_copied(bare, tmp_path):
    (tmp_path / "in").mkdir()
    write_tokenizer_json(bare, tmp_path / "in" / "tokenizer.json", EMBEDDED)
    write_tokenizer_json(tmp_path / "in", tmp_path / "out.json", EMBEDDED)
    assert (tmp_path / "out.json").read_bytes() == (tmp_path / "in" / "tokenizer.json").read_bytes()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "spiece.model",
            b"nothing of the kind",
            "spiece.model is damaged or of another kind; fetch it again",
        ),
        ("spiece.model", b"", "not a T5 tokenizer, whose <pad> is 0"),
        ("tokenizer.json", b"{}", r"tokenizer\.json: not a readable tokenizer\.json"),
        ("tokenizer.json", b"version https://git-lfs.github.com/spec/v1\n", "not a readable"),
        ("tokenizer.json", b"\xff\xfe", "not a readable"),
    ],
)
def test_a_broken_folder_is_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        write_tokenizer_json(tmp_path, tmp_path / "out.json", EMBEDDED)


def test_a_cut_spiece_is_damaged_and_needs_no_other_package(bare, tmp_path):
    content = (bare / "spiece.model").read_bytes()
    (tmp_path / "spiece.model").write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match="is damaged") as caught:
        write_tokenizer_json(tmp_path, tmp_path / "out.json", EMBEDDED)
    assert "tiktoken" not in str(caught.value)


def test_what_the_runtime_would_refuse_is_not_exported(bare, tmp_path):
    write_tokenizer_json(bare, tmp_path / "tokenizer.json", EMBEDDED)
    data = json.loads((tmp_path / "tokenizer.json").read_text())
    data["normalizer"] = {"type": "Prepend", "prepend": "x"}
    (tmp_path / "tokenizer.json").write_text(json.dumps(data))
    with pytest.raises(CheckpointError, match="not one of a T5 tokenizer"):
        write_tokenizer_json(tmp_path, tmp_path / "out.json", EMBEDDED)


def test_a_tokenizer_of_another_family_is_refused(bare, tmp_path):
    """Its ids would index the embedding all the same."""
    write_tokenizer_json(bare, tmp_path / "tokenizer.json", EMBEDDED)
    text = (tmp_path / "tokenizer.json").read_text().replace("</s>", "<end>")
    (tmp_path / "tokenizer.json").write_text(text)
    assert Fast.from_str(text).token_to_id("<end>") == 1
    with pytest.raises(CheckpointError, match="not a T5 tokenizer, whose </s> is 1"):
        write_tokenizer_json(tmp_path, tmp_path / "out.json", EMBEDDED)


def test_ids_beyond_the_embedding_are_refused(bare, tmp_path):
    write_tokenizer_json(bare, tmp_path / "tokenizer.json", EMBEDDED)
    ids = Fast.from_file(str(tmp_path / "tokenizer.json")).get_vocab_size()
    write_tokenizer_json(bare, tmp_path / "out.json", ids)
    with pytest.raises(CheckpointError, match=f"has {ids} ids but the text encoder embeds {ids - 1}"):
        write_tokenizer_json(bare, tmp_path / "out.json", ids - 1)
