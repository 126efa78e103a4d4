"""`ltx-parity check` as users run it, on a small checkpoint in every precision; faults that it must find."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import load_file, save_file

from ltxrt.engines import verification
from ltxrt.engines.bundle import read_bundle
from ltxrt.engines.errors import BundleError
from ltxrt.export.cli import main as export
from ltxrt.export.ltxv.open import open_checkpoint
from ltxrt.parity import families
from ltxrt.parity.check import backends, inputs, reference, results
from ltxrt.parity.check import run as check
from ltxrt.parity.check.tolerances import END_TO_END, tolerance
from ltxrt.parity.cli import main
from ltxrt.parity.ltxv.family import UPSAMPLERS
from ltxrt.parity.metrics import relative_l2

SMALL = ("--size", "64x96x17", "--size", "96x64x9", "--steps", "3")
PRECISIONS = ("fp32", "fp16", "bf16", "fp8", "fp8-fp16")


def run(case, *arguments, bundle=None, checkpoint=None):
    """The command in this process: starting torch anew each time takes longer than what it does here."""
    command = ["check", "--bundle", bundle or case / "bundle"]
    command += ["--checkpoint", checkpoint or case / "model.safetensors", "--text-encoder", case / "t5"]
    command += ["--model-version", "0.9.5", *SMALL, *arguments]
    return CliRunner().invoke(main, list(map(str, command)))


@pytest.fixture(scope="module")
def checked(parity_case, tmp_path_factory):
    """The whole check, once, with everything it can do; the folder of its report."""
    folder = tmp_path_factory.mktemp("report")
    done = run(parity_case, "--end-to-end", "--bisect", "--output", folder, "--save-inputs", folder / "saved")
    assert done.exit_code == 0, done.output
    return folder


@pytest.fixture(scope="module")
def report(checked):
    return results.read(checked / "report.json")


def test_every_precision_passes_or_says_why_it_was_skipped(parity_case, report):
    bundle = read_bundle(parity_case / "bundle")
    assert report.status == results.PASSED
    for component, precisions in bundle.components.items():
        for precision in precisions:
            rows = [c for c in report.checks if (c.component, c.precision) == (component, precision)]
            passed = {c.backend for c in rows if c.status == results.PASSED}
            here = {"fp32": {"onnxruntime"}, "bf16": {"emulated"}, "fp8": {"emulated"}}
            assert passed == here.get(precision, {"onnxruntime", "emulated"}), (component, precision)
            for row in rows:
                assert row.status == results.PASSED or (row.status == results.SKIPPED and row.problems[0])
    assert {c.precision for c in report.checks if c.component == "transformer"} == set(PRECISIONS)
    assert report.graphs == {
        f"{n}.{p}": verification.identity(g)
        for n, graphs in bundle.components.items()
        for p, g in graphs.items()
    }


def test_errors_grow_as_precision_falls(report):
    """A 16-bit graph that errs no more than fp32 would be one that is not 16-bit."""
    worst = {}
    for row in report.checks:
        if row.component == "transformer" and row.calls:
            worst[row.precision] = max(call.metrics.relative_l2 for call in row.calls)
    assert 0 < worst["fp32"] < 1e-5 < worst["fp16"] < worst["bf16"] < worst["fp8"]
    assert worst["fp16"] < worst["fp8-fp16"] < tolerance("fp8-fp16").relative_l2


def test_calls_are_those_of_sampling_runs(report):
    (row,) = (c for c in report.checks if c.component == "transformer" and c.precision == "fp32" and c.calls)
    assert {call.batch for call in row.calls} == {1, 2, 3}
    assert {call.size for call in row.calls} == {"64x96x17", "96x64x9"}
    assert [call.step for call in row.calls] == [1, 2, 3] * 3
    assert row.calls[0].timestep == 1.0 and all(0 < call.timestep <= 1 for call in row.calls)
    assert all(len(call.by_token) > 8 for call in row.calls)


def test_end_to_end_is_beside_the_report(checked, report):
    runs = {run.precision: run for run in report.end_to_end if run.status == results.PASSED}
    assert set(runs) == set(PRECISIONS)
    assert runs["fp32"].psnr > runs["fp16"].psnr > runs["bf16"].psnr > END_TO_END["bf16"][0]
    for one in runs.values():
        assert len(one.cosine_by_step) == 3 and 0.9 < one.ssim <= 1
        assert (checked / one.strip).stat().st_size > 1000 and (checked / one.video).stat().st_size > 1000
    assert all(run.problems for run in report.end_to_end if run.status == results.SKIPPED)


def test_the_page_says_what_the_data_say(checked, report):
    page = (checked / "report.html").read_text()
    assert "passed" in page.lower() and report.bundle in page
    for row in report.checks:
        assert row.component in page and row.backend in page


def test_polygraphy_s_own_command_runs_on_what_was_saved(parity_case, checked):
    saved = checked / "saved"
    graph = parity_case / "bundle" / "onnx" / "transformer.fp16.onnx"
    command = [Path(sys.executable).with_name("polygraphy"), "run", graph, "--onnxrt"]
    for given in (["--load-inputs", saved / "transformer.inputs.json"],
                  ["--data-loader-script", saved / "transformer_data_loader.py"]):  # fmt: skip
        compare = ["--load-outputs", saved / "transformer.outputs.json", "--compare", "cosine_similarity"]
        done = subprocess.run(
            [*map(str, [*command, *given, *compare])], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert re.search(r"Passed: 9/9 iterations", done.stdout)


@pytest.mark.parametrize("version", ["0.9.0", "0.9.1"])
def test_the_other_autoencoders_pass_against_diffusers(version, tiny_bundle, tiny_checkpoint):
    checkpoint = tiny_checkpoint(version)
    opened = open_checkpoint(checkpoint / "model.safetensors", None, checkpoint / "t5", version)
    plan = inputs.Plan(((64, 96, 9),), 2)
    order = check.Order(
        read_bundle(tiny_bundle(version)), opened, plan, "diffusers", backends=("onnxruntime",)
    )
    found, _ = check.run(order, lambda line: None)
    assert found.status == results.PASSED
    assert {c.reference for c in found.checks} == {"diffusers"} and len(found.checks) == 4


def test_upsamplers_are_compared_too(two_pass_bundle, tiny_checkpoint, tiny_upsampler):
    checkpoint = tiny_checkpoint("0.9.5")
    files = [tiny_upsampler(name) for name in UPSAMPLERS]
    opened = open_checkpoint(checkpoint / "model.safetensors", None, checkpoint / "t5", "0.9.5", files)
    plan, bundle = inputs.Plan(((64, 96, 9),), 2), read_bundle(two_pass_bundle)
    order = check.Order(bundle, opened, plan, components=UPSAMPLERS, backends=("onnxruntime",))
    found, _ = check.run(order, lambda line: None)
    assert [(c.component, c.status) for c in found.checks] == [(n, "passed") for n in UPSAMPLERS]


@pytest.fixture
def copy(parity_case, tmp_path):
    return shutil.copytree(parity_case / "bundle", tmp_path / "bundle")


@pytest.fixture
def change_weight(record_again):
    """Write another number in the middle of a weight, in the external data, as an export would have."""

    def change(folder, component, precision, name):
        bundle = read_bundle(folder)
        graph = bundle.components[component][precision]
        model = onnx.load(str(bundle.path(graph.file)), load_external_data=False)
        (tensor,) = (i for i in model.graph.initializer if i.name == name)
        place = {e.key: e.value for e in tensor.external_data}
        dtype = {TensorProto.FLOAT: np.float32, TensorProto.FLOAT16: np.float16}[tensor.data_type]
        offset = int(place["offset"]) + int(place["length"]) // 2
        with bundle.path(graph.data[0]).open("rb+") as file:
            file.seek(offset)
            file.write(np.full(64, 2, dtype).tobytes())
        record_again(folder, component, precision)

    return change


@pytest.mark.parametrize(
    ("component", "precision", "name", "block"),
    [
        ("transformer", "fp32", "transformer_blocks.1.attn1.to_out.0.weight", "transformer_blocks.1"),
        ("transformer", "fp16", "transformer_blocks.3.ff.net.2.weight", "transformer_blocks.3"),
        ("transformer", "fp32", "patchify_proj.weight", ""),
        ("vae_decoder", "fp32", "decoder.conv_in.conv.weight", ""),
        ("text_encoder", "fp32", "encoder.block.1.layer.0.SelfAttention.o.weight", "encoder.block.1"),
    ],
)
def test_a_changed_weight_fails_and_the_bisect_names_it(
    parity_case, copy, change_weight, component, precision, name, block
):
    change_weight(copy, component, precision, name)
    options = ("--component", component, "--precision", precision, "--backend", "onnxruntime", "--bisect")
    done = run(parity_case, *options, bundle=copy)
    assert done.exit_code == 1, done.output
    found = results.read(copy / "parity" / "report.json")
    assert found.status == results.FAILED
    (culprit,) = found.culprits
    assert culprit.block == block and culprit.operator.endswith(f"output of {name.removesuffix('.weight')}")
    assert culprit.relative_l2 > culprit.band


@pytest.mark.parametrize("backend", ["onnxruntime", "emulated"])
def test_files_that_are_not_as_recorded_are_not_compared(parity_case, copy, backend):
    """A failure of the one engine that reads them; the others are still looked at."""
    bundle = read_bundle(copy)
    data = bundle.path(bundle.components["transformer"]["fp16"].data[0])
    content = data.read_bytes()
    data.write_bytes(content[64:] + content[:64])
    opened = open_checkpoint(
        parity_case / "model.safetensors", text_encoder=parity_case / "t5", version="0.9.5"
    )
    order = check.Order(bundle, opened, inputs.Plan(((64, 96, 9),), 2))
    load = backends.loader(order.bundle, "transformer", "fp16", backend, None)  # which does not read them yet
    with pytest.raises(BundleError, match=f"{data.name} has SHA-256 .* changed or damaged"):
        load()


def drop_island(path, module):
    """The norm of `module` in the graph's own fp16: squares beyond 65504 are infinite there."""
    model = onnx.load(str(path), load_external_data=False)
    graph = model.graph
    makers = {name: n for n in graph.node if n.op_type in ("Cast", "Mul") for name in n.output}

    def comes_from(name, weight):
        """Whether a tensor is the weight, cast and scaled."""
        return name == weight or any(comes_from(i, weight) for i in getattr(makers.get(name), "input", ()))

    (norm,) = (
        n for n in graph.node
        if n.op_type == "RMSNormalization" and comes_from(n.input[1], f"{module}.weight")
    )  # fmt: skip
    x, epsilon = norm.input[0], next(a.f for a in norm.attribute if a.name == "epsilon")
    place = list(graph.node).index(norm)
    graph.initializer.append(numpy_helper.from_array(np.array(epsilon, np.float16), "island_epsilon"))
    graph.initializer.append(numpy_helper.from_array(np.array([-1]), "island_axis"))
    nodes = [
        helper.make_node("Cast", [x], ["island_x"], to=TensorProto.FLOAT16),
        helper.make_node("Mul", ["island_x", "island_x"], ["island_square"]),
        helper.make_node("ReduceMean", ["island_square", "island_axis"], ["island_mean"]),
        helper.make_node("Add", ["island_mean", "island_epsilon"], ["island_sum"]),
        helper.make_node("Sqrt", ["island_sum"], ["island_root"]),
        helper.make_node("Div", ["island_x", "island_root"], ["island_unit"]),
        helper.make_node("Cast", ["island_unit"], ["island_wide"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["island_wide", norm.input[1]], [norm.output[0]], name="without_island"),
    ]
    graph.node.remove(norm)
    for i, node in enumerate(nodes):
        graph.node.insert(place + i, node)
    del graph.value_info[:]
    onnx.save(model, str(path))


def test_a_dropped_fp32_island_fails_and_the_bisect_names_its_block(
    run_command, parity_case, record_again, tmp_path
):
    """Queries a thousand times as large: their norm does not see it, unless its squares are fp16.

    ONNX Runtime's CPU does not see it either: it computes fp16 graphs in fp32.
    """
    tensors = load_file(parity_case / "model.safetensors")
    for kind in ("weight", "bias"):
        tensors[f"model.diffusion_model.transformer_blocks.2.attn1.to_q.{kind}"] *= 1000
    with (parity_case / "model.safetensors").open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        metadata = json.loads(file.read(length)).get("__metadata__")
    checkpoint, bundle = tmp_path / "loud.safetensors", tmp_path / "bundle"
    save_file(tensors, checkpoint, metadata)
    onnx_fp16 = ("--text-encoder", parity_case / "t5", "--model-version", "0.9.5", "--precision", "fp16")
    run_command(export, "onnx", checkpoint, *onnx_fp16, "--output", bundle)
    options = ("--component", "transformer", "--backend", "emulated", "--bisect")
    healthy = run(parity_case, *options, bundle=bundle, checkpoint=checkpoint)
    assert healthy.exit_code == 0, healthy.output
    path = bundle / "onnx" / "transformer.fp16.onnx"
    drop_island(path, "transformer_blocks.2.attn1.q_norm")
    record_again(bundle, "transformer", "fp16")
    broken = run(parity_case, *options, bundle=bundle, checkpoint=checkpoint)
    assert broken.exit_code == 1, broken.output
    (culprit,) = results.read(bundle / "parity" / "report.json").culprits
    assert culprit.block == "transformer_blocks.2", culprit


def test_a_component_that_could_not_be_compared_is_no_pass(parity_case, copy):
    done = run(parity_case, "--component", "transformer", "--backend", "tensorrt", bundle=copy)
    assert done.exit_code == 1
    found = results.read(copy / "parity" / "report.json")
    assert found.status == results.FAILED and all("tensorrt" in c.problems[0] for c in found.checks)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--reference", "keras"], "--reference 'keras': must be one of torch, diffusers"),
        (["--component", "tokenizer"], "tokenizer"),
        (["--precision", "int4"], "--precision 'int4': the bundle has none of it"),
        (["--backend", "openvino"], "--backend 'openvino': no backend has this name"),
        (["--size", "64x96"], "--size '64x96': must be HEIGHTxWIDTHxFRAMES"),
        (["--size", "65x96x9"], "error: --size 65x96x9: height 65: must be "),
        (["--size", f"64x{'9' * 5000}x9"], "must be HEIGHTxWIDTHxFRAMES"),
        (["--image", "/nowhere/first.png"], "--image /nowhere/first.png"),
        (["--save-inputs", "/dev/null/x"], "--save-inputs /dev/null/x: cannot be made or written to"),
    ],
)
def test_mistakes_are_one_sentence_and_exit_status_two(parity_case, tmp_path, arguments, message):
    if arguments[0] == "--size":
        arguments = [*arguments, "--component", "text_encoder"]
    done = run(parity_case, *arguments, "--output", tmp_path / "out")
    assert done.exit_code == 2, done.output
    assert message in done.output and "Traceback" not in done.output
    assert not (tmp_path / "out" / "report.json").exists()


def test_another_model_s_checkpoint_is_refused(parity_case, tiny_checkpoint):
    done = run(parity_case, checkpoint=tiny_checkpoint("0.9.5") / "model.safetensors")
    assert done.exit_code == 2
    assert "its transformer is not the bundle's" in done.output


def test_the_references_agree(parity_case):
    opened = open_checkpoint(parity_case / "model.safetensors", None, parity_case / "t5", "0.9.5")
    bundle, family = read_bundle(parity_case / "bundle"), families.family("ltx-video")
    feed = bundle.contract("transformer").sample({"B": 2, "N": 12, "K": 2, "T": 5}, np.random.default_rng(0))
    one, other = (
        reference.session(bundle, opened, "transformer", name).run(feed)["velocity"]
        for name in reference.names(family)
    )
    assert relative_l2(one, other) < 1e-6


def test_a_verdict_needs_a_pass_of_every_component():
    def row(component, status):
        return results.Check(component, "fp32", "b", "torch", status, None, ())

    assert results.status(()) == results.SKIPPED
    assert results.status((row("a", "passed"), row("b", "skipped"))) == results.SKIPPED
    assert results.status((row("a", "passed"), row("a", "skipped"))) == results.PASSED
    assert results.status((row("a", "passed"), row("a", "failed"))) == results.FAILED


def test_a_part_keeps_the_rest_of_an_earlier_report(parity_case, copy, change_weight):
    options = ("--precision", "fp32", "--backend", "onnxruntime")
    assert run(parity_case, *options, bundle=copy).exit_code == 0
    whole = results.read(copy / "parity" / "report.json")
    change_weight(copy, "transformer", "fp32", "patchify_proj.weight")
    assert run(parity_case, *options, "--component", "transformer", bundle=copy).exit_code == 1
    part = results.read(copy / "parity" / "report.json")
    assert part.status == results.FAILED and "rows kept" in part.environment
    assert {c.component: c.status for c in part.checks} == {
        c.component: results.FAILED if c.component == "transformer" else results.PASSED for c in whole.checks
    }


def test_rows_of_graphs_that_changed_are_not_kept():
    def of(graphs, *components):
        rows = tuple(results.Check(c, "fp32", "b", "torch", "passed", None, ()) for c in components)
        return results.Report(results.SCHEMA, "passed", "b", "0.9.5", "now", {}, graphs, rows)

    before = of({"a.fp32": "1", "b.fp32": "2"}, "a", "b")
    after = results.merged(before, of({"a.fp32": "1", "b.fp32": "3"}, "a"))
    assert [c.component for c in after.checks] == ["a"]
    after = results.merged(before, of({"a.fp32": "4", "b.fp32": "2"}, "a"))
    assert [c.component for c in after.checks] == ["a", "b"]
    assert results.merged(before, of({}, "c")).checks[0].component == "c"


@pytest.mark.parametrize("package", ["torch", "polygraphy"])
def test_without_a_package_its_extra_is_named(package, tiny_bundle, tiny_checkpoint):
    code = f"import sys; sys.modules[{package!r}] = None; from ltxrt.parity.cli import main; main()"
    checkpoint = tiny_checkpoint("0.9.5") / "model.safetensors"
    given = ("check", "--bundle", tiny_bundle("0.9.5"), "--checkpoint", checkpoint)
    command = [sys.executable, "-c", code, *map(str, given)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode in (1, 2) and "Traceback" not in done.stderr
    assert f"{package} is not installed" in done.stderr and "parity]'" in done.stderr


@pytest.mark.parametrize("missing", ["bundle", "checkpoint"])
def test_what_is_not_there_is_found_before_torch_is_loaded(tiny_bundle, tmp_path, missing):
    bundle = tmp_path / "nowhere" if missing == "bundle" else tiny_bundle("0.9.5")
    command = ["check", "--bundle", bundle, "--checkpoint", tmp_path / "nowhere.safetensors"]
    done = CliRunner().invoke(main, list(map(str, command)))
    assert done.exit_code == 2
    (line,) = done.output.splitlines()
    assert line.startswith("error: ") and "nowhere" in line and "no such" in line
