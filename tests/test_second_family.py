"""A family of two streams, known to nobody but these tests, from its checkpoint to engines.

What breaks here knows LTX-Video where it should ask the family.
"""

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from two_streams import checkpoint as two_streams
from two_streams.facts import NAME, TWO_STREAMS, Facts

from ltxrt.engines import families as engine_families
from ltxrt.engines.backend import load_engine
from ltxrt.engines.bundle import read_bundle, verify
from ltxrt.engines.errors import BundleError, CheckpointError, InputError
from ltxrt.export import components
from ltxrt.export import families as export_families
from ltxrt.export.cli import main as export
from ltxrt.export.inspect import describe
from ltxrt.parity.check import reference, results
from ltxrt.parity.cli import main as parity

SIZES = {"B": 1, "V": 9, "S": 4, "T": 3}  # none that was traced


@pytest.fixture(scope="module", autouse=True)
def family():
    """Registered, as a family's two rows would be."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(engine_families.FAMILIES, NAME, TWO_STREAMS)
        patch.setitem(export_families.FAMILIES, NAME, "two_streams.family")
        yield


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return two_streams.write_random(tmp_path_factory.mktemp("two") / "model.safetensors")


@pytest.fixture(scope="module")
def bundle(file, run_command):
    """All components in fp32, and the denoiser in fp8-fp16 too, by the command that users run."""
    folder = file.parent / "bundle"
    run_command(export, "onnx", file, "--output", folder)
    quantised = ("--component", "denoiser", "--precision", "fp8-fp16", "--uncalibrated")
    run_command(export, "onnx", file, "--output", folder, *quantised)
    return read_bundle(folder)


def feed(contract, **sizes):
    inputs = contract.sample({**SIZES, **sizes}, np.random.default_rng(0))
    if "text_bytes" in inputs:
        inputs["text_bytes"] = np.frombuffer(b"sea", np.uint8)[None].astype(np.int64)
    return inputs


@pytest.mark.parametrize("name", ["ltx-video", NAME])
def test_a_family_has_the_same_components_in_all_its_tables(name):
    """The names that help shows, without loading NumPy; how each is made; how each is called."""
    exported = export_families.family(name)
    assert list(exported.COMPONENTS) == list(exported.components())
    assert list(exported.COMPONENTS) == list(engine_families.named(name).components)
    quantised = [component for component, row in exported.components().items() if row.fp8 is not None]
    assert tuple(quantised) == engine_families.named(name).quantised()


def test_a_checkpoint_is_recognised_and_described(file):
    assert describe(file) == "model.safetensors: two streams 1.0"


def test_the_bundle_says_what_the_checkpoint_is(file, bundle):
    verify(bundle)
    assert bundle.family == NAME and isinstance(bundle.facts, Facts) and bundle.tokenizer is None
    assert bundle.facts == components.facts(two_streams.open_checkpoint(file))
    assert {n: list(graphs) for n, graphs in bundle.components.items()} == {
        "reader": ["fp32"],
        "denoiser": ["fp32", "fp8-fp16"],
        "speaker": ["fp32"],
    }
    assert all(graph.memory is None for graphs in bundle.components.values() for graph in graphs.values())


@pytest.mark.parametrize("component", ["reader", "denoiser", "speaker"])
def test_engines_give_the_outputs_of_torch_by_name(file, bundle, component):
    contract = bundle.contract(component)
    inputs = feed(contract)
    with load_engine(bundle, component, precision="fp32") as engine:
        outputs = engine(**inputs)
    session = reference.session(bundle, two_streams.open_checkpoint(file), component)
    expected = session.run(inputs)
    assert list(outputs) == [tensor.name for tensor in contract.outputs]
    for name, values in outputs.items():
        assert values.dtype == np.float32 and values.shape == expected[name].shape
        assert np.linalg.norm(values - expected[name]) < 1e-4 * np.linalg.norm(expected[name])


def test_parity_verifies_every_output_on_random_inputs(file, bundle, run_command, tmp_path):
    where = ("--bundle", bundle.root, "--checkpoint", file, "--output", tmp_path)
    run_command(parity, "check", *where, "--precision", "fp32", "--backend", "onnxruntime")
    report = results.read(tmp_path / "report.json")
    names = {n: [t.name for t in bundle.contract(n).outputs] for n in bundle.components}
    found = [(row.component, row.output) for row in report.checks]
    assert found == [(n, t if len(names[n]) > 1 else "") for n in names for t in names[n]]
    assert len(names["denoiser"]) == 2 and report.status == results.PASSED
    assert all(row.status == results.PASSED and len(row.calls) == 3 for row in report.checks)
    assert "denoiser: sound_velocity on onnxruntime" in (tmp_path / "report.html").read_text()


def test_each_row_of_the_mask_is_for_its_stream(bundle):
    """In the last block, after which the streams do not meet."""
    inputs = feed(bundle.contract("denoiser"))
    with load_engine(bundle, "denoiser", precision="fp32") as engine:
        whole = engine(**inputs)
        for row in range(4):
            only = ("video_velocity", "sound_velocity")[row % 2]
            keep = inputs["keep_mask"].copy()
            keep[-1, row] = False
            outputs = engine(**{**inputs, "keep_mask": keep})
            assert [name for name in whole if not np.array_equal(whole[name], outputs[name])] == [only]


def test_fp8_is_where_the_family_says(bundle):
    graph = bundle.components["denoiser"]["fp8-fp16"]
    model = onnx.load(str(bundle.path(graph.file)), load_external_data=False).graph
    quantised = [i.name for i in model.initializer if i.data_type == onnx.TensorProto.FLOAT8E4M3FN]
    weights = [name for name in quantised if name.endswith(".weight")]
    assert len(weights) == 16 and all(name.startswith("blocks.1.") for name in weights)
    inputs = feed(bundle.contract("denoiser"))
    with load_engine(bundle, "denoiser", precision="fp8-fp16") as engine:
        assert all(np.isfinite(values).all() for values in engine(**inputs).values())


def test_an_engine_is_built_and_inspected(bundle, run_command):
    where = ("--bundle", bundle.root, "--component", "denoiser")
    options = ("--backend", "tensorrt_rtx", "--target", "sm89", "--precision", "fp32")
    run_command(export, "build-engines", *where, *options, "--profile", "8..24x4..10", "--max-tokens", 16)
    shown = run_command(export, "engines", "inspect", *where).output
    for text in ("denoiser", "sm89", "8..24x4..10"):
        assert text in shown


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--component", "vae_decoder"], "must be one of reader, denoiser, speaker"),
        (["--precision", "reader=fp8"], "only the denoiser is quantised to FP8"),
        (["--vae", "x.safetensors"], "--vae is not for this model"),
    ],
)
def test_what_another_family_has_is_refused(file, tmp_path, arguments, problem):
    command = ["onnx", str(file), "--output", str(tmp_path / "b"), *arguments]
    result = CliRunner().invoke(export, command)
    assert result.exit_code == 2 and problem in result.output


def test_a_bundle_of_another_family_is_not_extended(file, bundle, tiny_checkpoint):
    other = str(tiny_checkpoint("0.9.5") / "model.safetensors")
    result = CliRunner().invoke(
        export, ["onnx", other, "--component", "vae_encoder", "--output", str(bundle.root)]
    )
    assert result.exit_code == 2 and "holds components of another checkpoint (family is" in result.output


def test_a_family_that_is_not_registered_is_named(bundle, monkeypatch):
    monkeypatch.delitem(engine_families.FAMILIES, NAME)
    with pytest.raises(BundleError, match="model family 'two-streams'"):
        read_bundle(bundle.root)


def test_a_checkpoint_that_lacks_a_weight_is_refused(file, tmp_path):
    from safetensors.torch import load_file, save_file

    tensors = load_file(file)
    del tensors["denoiser.blocks.1.sound.own.q.bias"]
    save_file(tensors, tmp_path / "x.safetensors", metadata=two_streams.header())
    with pytest.raises(CheckpointError, match=r"denoiser: .* 1 missing \(blocks\.1\.sound\.own\.q\.bias\)"):
        export_families.of(tmp_path / "x.safetensors").open_checkpoint(tmp_path / "x.safetensors", {}, None)


def test_symbols_of_both_streams_are_checked(bundle):
    contract = bundle.contract("denoiser")
    inputs = {**feed(contract), "keep_mask": feed(contract, B=2)["keep_mask"]}
    with (
        load_engine(bundle, "denoiser", precision="fp32") as engine,
        pytest.raises(InputError, match="keep_mask"),
    ):
        engine(**inputs)
