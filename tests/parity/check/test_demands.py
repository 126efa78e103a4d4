"""What an option of `ltx-parity check` names has to run; what nobody named may be skipped, aloud."""

import json
import shutil

import pytest
from click.testing import CliRunner

from ltxrt.parity.check import demands, results
from ltxrt.parity.cli import main

RAN = {("fp32", "onnxruntime"), ("fp16", "onnxruntime"), ("fp16", "emulated")}
EVERY = ("onnxruntime", "onnxruntime_cuda", "tensorrt", "emulated")

NOTHING = {"tolerance": None, "calls": ()}


def rows(components=("transformer", "vae_decoder"), precisions=("fp32", "fp16"), backends=EVERY):
    """Rows as a machine without a GPU makes them."""
    skipped = {"status": "skipped", "problems": ("no",)}
    return [
        results.Check(c, p, b, "torch", **{"status": "passed"} if (p, b) in RAN else skipped, **NOTHING)
        for c in components
        for p in precisions
        for b in backends
    ]


def ends(precisions=("fp32", "fp16"), backends=EVERY):
    return [
        results.EndToEnd(
            c.precision, c.backend, "torch", c.status, (), None, 0.0, "", "", c.problems
        )
        for c in rows(("transformer",), precisions, backends)
    ]  # fmt: skip


BOTH = ("transformer", "vae_decoder")


@pytest.mark.parametrize(
    ("components", "precisions", "backends", "missing"),
    [
        ((), (), (), []),  # what nobody named may be skipped
        ((), ("fp32", "fp16"), (), []),
        ((), ("fp32", "fp16"), ("onnxruntime", "emulated"), []),  # fp32 emulated is no demand
        ((), (), ("onnxruntime",), []),
        ((), (), ("onnxruntime", "tensorrt"), [f"{c} on tensorrt: no" for c in BOTH]),
        ((), ("fp16",), ("onnxruntime", "tensorrt"), [f"{c} fp16 on tensorrt: no" for c in BOTH]),
        ((), ("fp32",), ("emulated",), [*(f"{c} fp32: no" for c in BOTH), "on emulated: no"]),
        ((), ("fp32",), ("onnxruntime", "emulated"), ["on emulated: no"]),
    ],
)
def test_what_was_named_and_did_not_run_is_told(components, precisions, backends, missing):
    found = rows(BOTH, precisions or ("fp32", "fp16"), backends or EVERY)
    assert list(demands.of_checks(components, precisions, backends, found)) == missing


def test_a_named_component_that_ran_nowhere_is_told():
    nowhere = rows(("transformer",), backends=("tensorrt",))
    assert demands.of_checks(("transformer",), (), (), nowhere) == ("transformer: no",)
    assert demands.of_checks((), (), (), nowhere) == ()  # the report's status says it


@pytest.mark.parametrize(
    ("precisions", "backends", "missing"),
    [
        ((), (), []),
        (("fp16",), (), []),
        (("fp16",), ("onnxruntime", "tensorrt"), ["end to end fp16 on tensorrt: no"]),
        (("fp16", "fp8"), (), ["end to end fp8: no component that it runs is in the bundle in fp8"]),
        ((), ("tensorrt",), ["end to end on tensorrt: no"]),
    ],
)
def test_a_run_of_the_whole_sampler_that_was_named_is_told(precisions, backends, missing):
    there = tuple(p for p in precisions if p != "fp8") or ("fp32", "fp16")
    assert list(demands.of_end_to_end(precisions, backends, ends(there, backends or EVERY))) == missing


def test_end_to_end_alone_asks_for_one_run():
    assert demands.of_end_to_end((), (), ends(("fp32",), ("tensorrt",))) == ("end to end: no",)


@pytest.mark.parametrize(
    ("precisions", "backends", "message"),
    [
        (
            ("fp8",),
            ("onnxruntime",),
            "--precision fp8: not run by onnxruntime; name a --backend that does: tensorrt_rtx, tensorrt, ",
        ),
        (("fp32", "bf16"), ("onnxruntime",), "--precision bf16: not run by onnxruntime"),
        (
            ("fp32",),
            ("onnxruntime", "emulated"),
            "--backend emulated: runs none of fp32; leave it out, or name one of fp16, bf16, fp8, fp8-fp16",
        ),
    ],
)
def test_pairs_that_run_nowhere_are_refused_before_the_work(parity_case, precisions, backends, message):
    given = [part for p in precisions for part in ("--precision", p)]
    given += [part for b in backends for part in ("--backend", b)]
    done = run(parity_case, parity_case / "bundle", *given)
    assert done.exit_code == 2, done.output
    loading, line = done.output.splitlines()
    assert loading == "loading torch" and message in line


def only(folder, precisions, target):
    """A copy of a bundle with some of its precisions."""
    shutil.copytree(folder, target)
    manifest = json.loads((target / "bundle.json").read_text())
    manifest["components"] = {
        name: {p: graph for p, graph in graphs.items() if p in precisions}
        for name, graphs in manifest["components"].items()
    }
    (target / "bundle.json").write_text(json.dumps(manifest))
    return target


def run(case, bundle, *arguments):
    command = ["check", "--bundle", bundle, "--checkpoint", case / "model.safetensors"]
    command += ["--text-encoder", case / "t5", "--model-version", "0.9.5", "--steps", "2", *arguments]
    return CliRunner().invoke(main, list(map(str, command)))


FP8 = ("--precision", "fp8", "--component", "transformer", "--size", "64x96x9")


def test_fp8_beside_fp32_runs_end_to_end(parity_case, tmp_path):
    """docs/fp8.md's own commands: the other components are in fp32, which needs no emulation."""
    bundle = only(parity_case / "bundle", ("fp32", "fp8"), tmp_path / "b")
    done = run(parity_case, bundle, *FP8, "--end-to-end")
    assert done.exit_code == 0, done.output
    assert "end to end fp8 on emulated (text_encoder fp32, vae_decoder fp32): passed" in done.output
    (ran,) = (e for e in results.read(bundle / "parity" / "report.json").end_to_end if e.status == "passed")
    assert (ran.precision, ran.backend) == ("fp8", "emulated")
    assert done.output.splitlines()[-1].endswith(
        "passed, 1 passed, 0 failed, 4 skipped; end to end 1 passed, 0 failed, 4 skipped"
    )


def test_an_end_to_end_run_that_was_asked_for_and_skipped_fails(parity_case, tmp_path):
    bundle = only(parity_case / "bundle", ("fp32", "fp8"), tmp_path / "b")
    first = run(parity_case, bundle, "--precision", "fp32", "--backend", "onnxruntime", "--size", "64x96x9")
    assert first.exit_code == 0, first.output
    done = run(parity_case, bundle, *FP8, "--backend", "emulated", "--backend", "tensorrt", "--end-to-end")
    assert done.exit_code == 1, done.output
    lines, reason = done.output.splitlines(), "tensorrt is not installed; install it with: "
    for what in ("transformer fp8 on tensorrt: ", "end to end fp8 on tensorrt: "):
        assert sum(line.startswith(f"skipped {what}") and reason in line for line in lines) == 1
        assert sum(f"asked for, but did not run: {what}" in line for line in lines) == 1
    assert lines[-1].endswith(
        "failed, 1 passed, 0 failed, 1 skipped; end to end 1 passed, 0 failed, 1 skipped; "
        "4 rows kept from an earlier check"
    )
    report = results.read(bundle / "parity" / "report.json")
    assert report.status == results.FAILED and report.unmet
    page = (bundle / "parity" / "report.html").read_text()
    assert "Asked for, but did not run: " in page and "FAILED" in page


def test_rows_of_an_earlier_check_do_not_stand_in_for_what_was_asked(parity_case, tmp_path):
    """A pass on one backend, then a check on another that cannot run here."""
    bundle = only(parity_case / "bundle", ("fp32",), tmp_path / "b")
    options = ("--component", "text_encoder", "--size", "64x96x9", "--backend")
    assert run(parity_case, bundle, *options, "onnxruntime").exit_code == 0
    done = run(parity_case, bundle, *options, "tensorrt")
    assert done.exit_code == 1, done.output
    assert "asked for, but did not run: text_encoder on tensorrt: tensorrt is not installed" in done.output
    assert "failed, 0 passed, 0 failed, 1 skipped; 1 rows kept from an earlier check" in done.output
    again = run(parity_case, bundle, *options, "onnxruntime", "--json")
    assert again.exit_code == 0, "the demand is not kept"
    assert again.stderr == ""
    *events, found = map(json.loads, again.stdout.splitlines())
    (check,) = found["checks"]
    assert (found["event"], found["status"], found["unmet"]) == ("result", "passed", [])
    assert (check["component"], check["backend"], check["status"]) == (
        "text_encoder",
        "onnxruntime",
        "passed",
    )
    stages = {event["stage"]: event["total"] for event in events if event["event"] == "progress"}
    assert {"loading torch", "making inputs on torch"} < stages.keys()
    assert stages["text_encoder on torch"] == stages["text_encoder fp32 on onnxruntime"] > 0


def test_a_component_that_has_none_of_the_precisions_is_refused_before_the_work(parity_case):
    done = run(parity_case, parity_case / "bundle", *FP8, "--component", "vae_decoder")
    assert done.exit_code == 2
    *_, line = done.output.splitlines()
    assert line == (
        "error: --component vae_decoder: the bundle has it in fp32, fp16, bf16, not in fp8; leave it out, or "
        "name one of its precisions too"
    )


def test_every_size_that_was_given_is_run(parity_case, tmp_path):
    """And what is named twice is compared once."""
    sizes = ("64x96x9", "96x64x9", "64x64x9", "64x96x17")
    given = [part for size in sizes for part in ("--size", size)]
    options = ("--component", "vae_decoder", "--precision", "fp32", "--backend", "onnxruntime") * 2
    done = run(parity_case, parity_case / "bundle", *given, *options, "--output", tmp_path)
    assert done.exit_code == 0, done.output
    (row,) = results.read(tmp_path / "report.json").checks
    assert {call.size for call in row.calls} == set(sizes)


def test_a_report_of_an_earlier_release_is_read(tmp_path):
    row = results.Check("a", "fp32", "b", "torch")
    report = results.Report(results.SCHEMA, "passed", "b", "0.9.5", "now", {}, {}, (row,))
    results.write(report, tmp_path / "report.json")
    data = json.loads((tmp_path / "report.json").read_text())
    del data["unmet"]
    assert "output" not in data["checks"][0]  # as earlier releases wrote and read it
    (tmp_path / "report.json").write_text(json.dumps(data))
    assert results.read(tmp_path / "report.json") == report
