"""Outside a family's folders nothing knows its components: what is read of a model is asked of its family."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("engines", "export", "runtime", "parity/check", "parity/report")
REGISTRIES = {"engines/families/__init__.py", "export/families.py", "runtime/families.py"}
COMPONENTS = "vae_encoder|vae_decoder|text_encoder|latent_upsampler|temporal_upsampler"
WORDS = re.compile(rf"(?<![A-Za-z0-9])(?:{COMPONENTS}|LTX-Video|ltxv|T5)(?![A-Za-z0-9])")
WHOLE = {"vae", "transformer"}  # as a string; as an identifier, `vae` is any model's autoencoder

# Files that read what LTX-Video's own files say, and why.
EXEMPT = {
    "engines/parsing/tokenizer_file.py": "checks a T5 tokenizer",
    "runtime/__init__.py": "its `Pipeline`, `Event`, `Stream` and `Video` are LTX-Video's",
    "runtime/request/yaml_file.py": "the official pipeline files name a text encoder",
}
FILES = [
    path.relative_to(ROOT).as_posix()
    for folder in FOLDERS
    for path in sorted((ROOT / folder).rglob("*.py"))
    if "ltxv" not in path.parts
]


def docstrings(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
            yield node.body[0].value


def family_words(source):
    """LTX-Video's names in imports, strings and identifiers; docstrings and comments may explain by them."""
    tree = ast.parse(source)
    told = {id(node) for node in docstrings(tree)}
    for node in ast.walk(tree):
        text = node.value if isinstance(node, ast.Constant) and id(node) not in told else None
        if isinstance(text, str) and (text in WHOLE or WORDS.search(text)):
            yield text
        names = [getattr(node, field, None) for field in ("id", "attr", "arg", "name", "module")]
        yield from (n for n in names if isinstance(n, str) and WORDS.search(n))


@pytest.mark.parametrize("file", sorted(set(FILES) - set(EXEMPT) - REGISTRIES))
def test_no_family_is_named(file):
    assert list(family_words((ROOT / file).read_text(encoding="utf-8"))) == []


def test_exemptions_are_needed():
    assert set(FILES) >= REGISTRIES | set(EXEMPT)
    assert all(list(family_words((ROOT / file).read_text(encoding="utf-8"))) for file in EXEMPT)


@pytest.mark.parametrize(
    "source",
    [
        "from ltxrt.engines.families.ltxv.facts import Facts",
        "import ltxrt.export.ltxv.open",
        "importlib.import_module('ltxrt.runtime.ltxv.pipeline')",
        "tiled = name == 'vae_decoder'",
        "part = parts['transformer']",
        "def f(text_encoder): ...",
        "facts.text_encoder.width",
        "f(latent_upsampler=1)",
        "raise InputError(f'{path}: not a T5 tokenizer')",
    ],
)
def test_the_check_sees_a_planted_name(source):
    assert list(family_words(source))


@pytest.mark.parametrize("source", ["'''LTX-Video's T5.'''", "transformers = 1", "names = ['T50', 'vaea']"])
def test_the_check_leaves_other_words(source):
    assert list(family_words(source)) == []
