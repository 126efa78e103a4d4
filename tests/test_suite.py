"""The suite's own helpers: what is kept between runs is what would be made again."""

import functools
import shutil

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
    for folder in ("engines", "export"):
        shutil.copytree(write.__file__.removesuffix("/export/write.py") + f"/{folder}", tmp_path / folder)
    moved = traces.key(*text_encoder)
    assert moved in keys, "a working tree of the same content shares it"
    with (tmp_path / "export" / "ltxv" / "models" / "t5.py").open("a") as file:
        file.write("# changed\n")
    traces.imports.cache_clear()
    keys.add(traces.key(*text_encoder))
    assert len(keys) == 5
    with (tmp_path / "export" / "ltxv" / "models" / "vae.py").open("a") as file:
        file.write("# which no text encoder is made of\n")
    assert traces.key(*text_encoder) in keys


def test_files_that_a_module_leads_to_are_found_through_others():
    files = {f.relative_to(traces.ROOT).as_posix() for f in traces.closure([tracing.__name__])}
    assert {"export/graph/trace.py", "export/graph/layers.py", "engines/contract.py"} <= files
    assert "runtime/cli.py" not in files
