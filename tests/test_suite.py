"""The suite itself: its marks, what `make` runs of it, kept graphs that are what would be traced again."""

import ast
import functools
import shutil
import tomllib
from pathlib import Path

import pytest
import traces

from ltxrt.engines import families
from ltxrt.export import write
from ltxrt.export.graph import trace as tracing
from ltxrt.export.graph.layers import Linear
from ltxrt.export.ltxv.components import COMPONENTS
from ltxrt.export.ltxv.family import TRACE_SIZES, facts
from ltxrt.export.ltxv.open import open_checkpoint


@pytest.fixture
def text_encoder(tiny_checkpoint):
    """What an export of the tiny text encoder gives to `trace`."""
    folder = tiny_checkpoint("0.9.5")
    checkpoint = open_checkpoint(folder / "model.safetensors", text_encoder=folder / "t5", version="0.9.5")
    component = COMPONENTS["text_encoder"]
    build = functools.partial(component.module, checkpoint.text_encoder.config)
    return build, families.derive("text_encoder", facts(checkpoint)), "fp32", TRACE_SIZES


def text_of(traced):
    return traces.ir.serde.serialize_model(traced.model).SerializeToString(deterministic=True)


def test_a_kept_graph_is_the_traced_one(text_encoder, tmp_path, monkeypatch):
    traces.keep(monkeypatch, tmp_path)
    first = write.trace(*text_encoder)
    (kept,) = tmp_path.glob("*.onnx")
    monkeypatch.setattr(tracing, "trace", None)  # it is not traced again
    again = write.trace(*text_encoder)
    assert text_of(again) == text_of(first) and again.transposed == first.transposed
    assert list(again.model.graph.initializers) == list(first.model.graph.initializers)
    assert {n for n, v in again.model.graph.initializers.items() if v.const_value is None} >= again.transposed
    kept.unlink()
    with pytest.raises(TypeError):
        write.trace(*text_encoder)


def test_the_key_is_of_all_that_decides_a_graph(text_encoder, tmp_path, monkeypatch):
    build, contract, _, sizes = text_encoder
    keys = {traces.key(*text_encoder), traces.key(build, contract, "fp16", sizes)}
    keys.add(traces.key(functools.partial(Linear, *build.args), contract, "fp32", sizes))
    monkeypatch.setattr(traces, "PACKAGES", traces.PACKAGES[1:])
    keys.add(traces.key(*text_encoder))
    monkeypatch.setattr(traces, "ROOT", tmp_path)
    shutil.copytree(Path(write.__file__).parent, tmp_path / "export")
    moved = traces.key(*text_encoder)
    assert moved in keys, "a working tree of the same content shares it"

    def after(name, text):
        with (tmp_path / "export" / "ltxv" / "models" / name).open("a") as file:
            file.write(text)
        traces.imports.cache_clear()
        traces.code.cache_clear()
        return traces.key(*text_encoder)

    assert after("t5.py", "# a comment\n") in keys
    assert after("vae.py", "of_no_text_encoder = 1\n") in keys
    assert after("t5.py", "changed = 1\n") not in keys and len(keys) == 4


def test_what_a_graph_is_made_of_is_found():
    """Beside export/, whose files are hashed, contracts alone, of which `traces.said` has what is used."""
    modules = [tracing.__name__, *(c.module.__module__ for c in COMPONENTS.values())]
    files = traces.closure(modules)
    names = {f.relative_to(traces.ROOT).as_posix() for f in files}
    assert {"export/graph/trace.py", "export/graph/layers.py", "export/ltxv/models/vae.py"} <= names
    imported = {
        (node.module, name.name)
        for file in files
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module.startswith("ltxrt.")
        for name in node.names
        if not node.module.startswith(traces.EXPORT)
    }
    assert {name for module, name in imported if module != "ltxrt.engines.errors"} == {"Affine", "Contract"}


PYTEST_S = {"parametrize", "skipif", "filterwarnings", "usefixtures", "xfail"}


def marks(file):
    """The names in `pytest.mark.name` of a file."""
    found = (n for n in ast.walk(ast.parse(file.read_text())) if isinstance(n, ast.Attribute))
    return {n.attr for n in found if ast.unparse(n.value) == "pytest.mark"}


def test_every_mark_is_declared():
    """A misspelt mark would have a test run where it should not."""
    options = tomllib.loads((traces.ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    used = set().union(*(marks(file) for file in (traces.ROOT / "tests").rglob("*.py")))
    assert "slow" in used and used - PYTEST_S <= {line.partition(":")[0] for line in options["markers"]}
    assert "--strict-markers" in options["addopts"]


def test_only_make_test_leaves_tests_out():
    rules = (traces.ROOT / "Makefile").read_text()
    assert [line.split("pytest ")[1] for line in rules.splitlines() if "$(RUN) pytest" in line] == [
        "-m 'not slow' $(PYTEST_ARGS)",
        "$(PYTEST_ARGS)",
    ]
    assert "for check in lint types docs test-all;" in (traces.ROOT / ".ci" / "run").read_text()
