"""A T5 tokenizer folder becomes one tokenizer.json with the same ids."""

import json

import pytest
import sentencepiece
from transformers import AutoTokenizer

from ltxrt.engines.errors import CheckpointError
from ltxrt.export.tokenizer import write_tokenizer_json
from ltxrt.runtime.prompt import Tokenizer

PROMPTS = ["A wave breaks on the shore.", "  two  spaces ", "naïve café, 3 × 4", "", "unknown 漢字 here"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """As the published text encoder's: spiece.model and its configs, no tokenizer.json."""
    path = tmp_path_factory.mktemp("tokenizer")
    text = path / "text.txt"
    words = ["a", "wave", "breaks", "on", "the", "shore", "two", "spaces", "naive", "cafe", "here", "sun"]
    text.write_text("\n".join(f"{a} {b} {c}." for a in words for b in words for c in words[:3]))
    sentencepiece.SentencePieceTrainer.train(
        input=str(text), model_prefix=str(path / "spiece"), vocab_size=70, pad_id=0, eos_id=1, unk_id=2,
        bos_id=-1, minloglevel=2, hard_vocab_limit=False,
    )  # fmt: skip
    special = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    (path / "special_tokens_map.json").write_text(json.dumps(special))
    config = {"tokenizer_class": "T5Tokenizer", "extra_ids": 100, "model_max_length": 512, **special}
    (path / "tokenizer_config.json").write_text(json.dumps(config))
    text.unlink()
    return path


@pytest.mark.parametrize("prompt", PROMPTS)
def test_ids_are_those_of_the_reference(folder, tmp_path, prompt):
    write_tokenizer_json(folder, tmp_path / "tokenizer.json")
    ours = Tokenizer(tmp_path / "tokenizer.json", 32).encode(prompt, required=False)
    theirs = AutoTokenizer.from_pretrained(folder)(
        prompt.strip(), padding="max_length", max_length=32, truncation=True, return_tensors="np"
    )
    assert ours.input_ids.tolist() == theirs["input_ids"].tolist()
    assert ours.attention_mask.tolist() == theirs["attention_mask"].tolist()


def test_a_ready_file_is_copied(folder, tmp_path):
    (tmp_path / "in").mkdir()
    write_tokenizer_json(folder, tmp_path / "in" / "tokenizer.json")
    write_tokenizer_json(tmp_path / "in", tmp_path / "out.json")
    assert (tmp_path / "out.json").read_bytes() == (tmp_path / "in" / "tokenizer.json").read_bytes()


def test_a_broken_folder_is_refused(tmp_path):
    (tmp_path / "spiece.model").write_bytes(b"nothing of the kind")
    with pytest.raises(CheckpointError, match="no readable T5 tokenizer"):
        write_tokenizer_json(tmp_path, tmp_path / "out.json")
