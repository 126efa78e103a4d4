"""Outside a family's folders nothing knows its components: what is read of a model is asked of its family."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("engines", "export", "runtime", "parity/check", "parity/report")
REGISTRIES = {"engines/families/__init__.py", "export/families.py"}
COMPONENTS = "vae_encoder|vae_decoder|text_encoder|latent_upsampler|temporal_upsampler"
WORDS = re.compile(rf"(?<![A-Za-z0-9])(?:{COMPONENTS}|LTX-Video|ltxv|T5)(?![A-Za-z0-9])")
WHOLE = {"vae", "transformer"}  # as a string; `vae` as an identifier too

# Files of before there were families. They lose their words as a second family needs them: shorten this list.
NOT_YET = {
    "engines/parsing/tokenizer_file.py",
    "runtime/__init__.py",
    "runtime/cli.py",
    "runtime/media/conditions.py",
    "runtime/media/read.py",
    "runtime/request/compat.py",
    "runtime/request/request.py",
    "runtime/request/yaml_file.py",
    "runtime/sampling/latents.py",
    "runtime/sampling/rope.py",
    "runtime/sampling/schedule.py",
    "runtime/vae/tiling.py",
    "parity/check/bisect.py",
    "parity/check/end_to_end.py",
    "parity/check/inputs.py",
    "parity/check/run.py",
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
        yield from (n for n in names if isinstance(n, str) and (n == "vae" or WORDS.search(n)))


@pytest.mark.parametrize("file", sorted(set(FILES) - NOT_YET - REGISTRIES))
def test_no_family_is_named(file):
    assert list(family_words((ROOT / file).read_text(encoding="utf-8"))) == []


def test_the_packages_that_a_second_family_needs_first_name_none():
    assert set(FILES) >= REGISTRIES
    assert {file for file in NOT_YET if file.startswith(("engines/", "export/"))} <= {
        "engines/parsing/tokenizer_file.py"
    }


@pytest.mark.parametrize(
    "source",
    [
        "from ltxrt.engines.families.ltxv.facts import Facts",
        "import ltxrt.export.ltxv.open",
        "importlib.import_module('ltxrt.runtime.ltxv.pipeline')",
        "tiled = name == 'vae_decoder'",
        "part = parts['transformer']",
        "def f(text_encoder): ...",
        "facts.vae.spatial_compression",
        "f(latent_upsampler=1)",
        "raise InputError(f'{path}: not a T5 tokenizer')",
    ],
)
def test_the_check_sees_a_planted_name(source):
    assert list(family_words(source))


@pytest.mark.parametrize("source", ["'''LTX-Video's T5.'''", "transformers = 1", "names = ['T50', 'vaea']"])
def test_the_check_leaves_other_words(source):
    assert list(family_words(source)) == []
