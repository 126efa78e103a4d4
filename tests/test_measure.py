"""`.ci/measure.py`: its limits refuse what exceeds them, and its measures count what they say."""

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def measure():
    spec = importlib.util.spec_from_file_location("measure", ROOT / ".ci" / "measure.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["measure"] = module  # where dataclasses look for their annotations
    yield module
    del sys.modules["measure"]


@pytest.fixture
def loaded(measure):
    measure.__spec__.loader.exec_module(measure)
    return measure


def written(folder, **files):
    """A folder `engines` with one file of Python for each name."""
    (folder / "engines").mkdir()
    for name, text in files.items():
        (folder / "engines" / f"{name}.py").write_text(text)
    return folder


def body(lines):
    return "def f():\n" + "    x = 1\n" * lines


PLANTED = [
    ({"a": "x = 1\n" * 401}, "engines/a.py: 401 lines"),
    ({"a": body(60)}, "engines/a.py:f: 61 lines"),
    ({"a": "def g():\n" + "".join(f"    {line}\n" for line in body(60).splitlines())}, "engines/a.py:f: 61"),
    (
        {"a": "def f(a, b, c, /, d, *e, g, **h): ...\ndef i(a, b, c, /, d, *e, g, h, **j): ..."},
        "a.py:i: 8 param",
    ),
    ({f"m{i}": "" for i in range(17)}, "engines: 17 Python files"),
]


@pytest.mark.parametrize(("files", "line"), PLANTED, ids=[line for _, line in PLANTED])
def test_the_limits_find_a_planted_violation(loaded, tmp_path, files, line):
    found = loaded.check(loaded.sources(written(tmp_path, **files)), {})
    assert any(line in problem for problem in found)
    assert not any(problem.startswith("engines/a.py:f") for problem in found) or ":f" in line


def test_what_is_within_the_limits_passes(loaded, tmp_path):
    method = "class C:\n    def m(self, a, b, c, d, e, f, g): ...\n"
    files = {"a": body(59) + "x = 1\n" * 340, "b": method, **{f"m{i}": "" for i in range(14)}}
    assert loaded.check(loaded.sources(written(tmp_path, **files)), {}) == []


def test_an_exception_that_nothing_needs_is_reported(loaded, tmp_path):
    files = loaded.sources(written(tmp_path, a="x = 1\n" * 401, b=""))
    assert loaded.check(files, {"engines/a.py": "long"}) == []
    (problem,) = loaded.check(files, {"engines/a.py": "long", "engines/b.py": "was long"})
    assert problem.startswith("engines/b.py: ") and "remove it" in problem


def test_measures_count_nested_functions_public_names_and_depth(loaded, tmp_path):
    text = '''__all__ = ["f"]

def f(a: int) -> int:
    """Documented."""
    def _inner(b):
        return b
    if a:
        pass
    elif a > 1:
        for b in []:
            pass
    return _inner(a)

class C: ...
def _g(): ...
'''
    (file,) = files = loaded.sources(written(tmp_path, __init__=text))
    assert file.public == ["f", "C"] and file.declared == {"f": [""]}
    assert {f.name: (loaded.length(f), loaded.nesting(f)) for f in file.functions} == {
        "f": (10, 2), "_inner": (2, 0), "_g": (1, 0),
    }  # fmt: skip
    found = loaded.measures(files)
    assert found["lines of a function, median / p90 / max"] == "2 / 10 / 10"
    assert found["functions with a docstring"] == found["functions with all types"] == "33%"
    assert found["names without underscore"] == "2 (133 in 1,000 lines)"
    assert found["of these public by an __all__"] == "1"
    (tmp_path / "engines/__init__.py").write_text('__all__, __getattr__ = public(__name__, "a", b="x y")')
    (tmp_path / "engines/b.py").write_text("def x(): ...\nclass y: ...\ndef z(): ...\n")
    (tmp_path / "engines/a.py").write_text("def f(): ...\ndef g(): ...\ndef _h(): ...\n")
    assert loaded.measures(loaded.sources(tmp_path))["of these public by an __all__"] == "4"


def test_a_request_enters_few_files_and_its_pipeline_seldom(loaded, tiny_bundle):
    """The limits are what docs/design.md says; fewer is better."""
    found = {name: int(value) for name, value in loaded.trace(tiny_bundle("0.9.5")).items()}
    assert 20 < found["files that a request enters"] <= 58
    assert 1 <= found["entries into the pipeline's module"] <= 3
