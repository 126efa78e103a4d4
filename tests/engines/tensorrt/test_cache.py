"""Engines compiled here for real (TensorRT for RTX needs no GPU), and the cache that tells stale ones."""

import dataclasses
import errno
import json
import multiprocessing
import os
import shutil

import onnx
import pytest
import tensorrt_rtx
from click.testing import CliRunner

from ltxrt.engines.bundle import read_bundle, record
from ltxrt.engines.errors import BundleError, EngineError, InputError
from ltxrt.engines.tensorrt import build as trt
from ltxrt.engines.tensorrt import cache, profiles
from ltxrt.engines.tensorrt import inspect as inspection
from ltxrt.export.cli import main

INSTALLED = {"tensorrt_rtx": trt.version("tensorrt_rtx")}
TEXTS = ("64x96x9", "64..128x96..192x9..33")


@pytest.fixture
def bundle(two_pass_bundle, tmp_path):
    """A copy that may be spoiled, of the two-pass bundle."""
    folder = tmp_path / "bundle"
    shutil.copytree(two_pass_bundle, folder)
    return read_bundle(folder)


def order(bundle, component="latent_upsampler", target="sm89", texts=TEXTS, options=trt.BuildOptions()):  # noqa: B008
    parsed = tuple(profiles.parse(text, bundle.facts) for text in texts)
    return cache.BuildOrder(component, "fp32", "tensorrt_rtx", target, parsed, options)


@pytest.fixture
def compiled(monkeypatch):
    """Files of what decides them in place of compiled engines, for tests of keys, records and damage.

    Engines are compiled where a test does not ask for this, and in `test_compile.py` and `test_build.py`.
    """

    def build(graph, contract, backend, target, profiles, options, output, *_):
        decides = (graph.name, contract, backend, target, profiles, options)
        output.write_bytes(repr(decides).encode())
        return trt.Built(0, 0, {"made up": {"float": 1}})

    monkeypatch.setattr(trt, "build", build)


def run(bundle, *arguments):
    return CliRunner().invoke(main, [*arguments, "--bundle", str(bundle.root)])


def test_an_engine_is_built_once_and_then_found(bundle):
    seen = []
    built = cache.build(bundle, order(bundle), seen.append)
    assert {one.stage for one in seen} == {"latent_upsampler fp32 for sm89"}
    assert (seen[0].done, seen[-1].done, seen[-1].total) == (0, 100, 100) and len(seen) > 20
    stamp = built.path.stat().st_mtime_ns
    assert built.path.parent.relative_to(bundle.root).as_posix() == "engines/tensorrt_rtx/sm89"
    assert cache.build(bundle, order(bundle)).path.stat().st_mtime_ns == stamp
    (found,) = cache.find(bundle, "tensorrt_rtx", "sm89", "latent_upsampler", "fp32")
    assert (found.path, found.record.sha256) == (built.path, built.record.sha256)
    assert sorted(p.suffix for p in built.path.parent.iterdir()) == [".engine", ".json"]


@pytest.mark.usefixtures("compiled")
def test_every_engine_that_fits_is_found_the_newest_first(bundle):
    """A second build for other sizes hid the first."""
    first, second = cache.build(bundle, order(bundle)), cache.build(bundle, order(bundle, texts=TEXTS[:1]))
    for stamp, built in enumerate((second, first)):
        os.utime(built.path, (stamp, stamp))
    found = cache.find(bundle, "tensorrt_rtx", "sm89", "latent_upsampler", "fp32")
    assert [f.path for f in found] == [first.path, second.path]


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize(
    "change",
    [{"target": "sm120"}, {"texts": TEXTS[:1]}, {"texts": TEXTS[::-1]},
     {"options": trt.BuildOptions(weight_streaming=True)}],
)  # fmt: skip
def test_whatever_decides_is_in_the_key(bundle, change):
    first, second = cache.build(bundle, order(bundle)), cache.build(bundle, order(bundle, **change))
    assert first.path.name != second.path.name
    assert [f.problem for f in cache.verify(bundle, INSTALLED)] == ["", ""]


def change_record(path, **values):
    record = path.with_suffix(".json")
    record.write_text(json.dumps({**json.loads(record.read_text()), **values}))


def spoil_flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def spoil_cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def deepen(record):
    """Options nested so deep that hashing them would run out of stack."""
    data = json.loads(record.read_text())
    record.write_text(json.dumps(data | {"options": "deep"}).replace('"deep"', "[" * 9000 + "]" * 9000))


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (spoil_flip, "its content is not what was built"),
        (spoil_cut, "is cut or was replaced"),
        (lambda path: path.with_suffix(".json").unlink(), "has no readable record"),
        (lambda path: path.with_suffix(".json").write_text("{"), "has no readable record"),
        (lambda path: deepen(path.with_suffix(".json")), "has no readable record"),
        (lambda path: change_record(path, target="sm75"), "its record belongs to another engine"),
        (
            lambda path: path.rename(path.with_name(f"transformer.fp32.{0:016}.engine")),
            "has no readable record",
        ),
    ],
)
def test_damage_is_named_never_loaded_and_pruned(bundle, spoil, problem):
    path = cache.build(bundle, order(bundle)).path
    path.with_suffix(".runtime").write_bytes(b"what a GPU's run left beside it")
    spoil(path)
    (found,) = cache.verify(bundle, INSTALLED)
    assert problem in found.problem
    with pytest.raises((InputError, EngineError), match="build"):
        cache.read(cache.find(bundle, "tensorrt_rtx", "sm89", "latent_upsampler", "fp32")[0].path)
    assert cache.prune(bundle, [found])
    assert list(path.parent.iterdir()) == []
    assert cache.build(bundle, order(bundle)).problem == ""


@pytest.mark.usefixtures("compiled")
def test_another_version_or_graph_is_recognised(bundle):
    cache.build(bundle, order(bundle))
    (found,) = cache.engines(bundle, {"tensorrt_rtx": "9.9.9"})
    assert "was built by tensorrt_rtx" in found.problem and "installed is 9.9.9" in found.problem
    graph = bundle.components["latent_upsampler"]["fp32"]
    other = dataclasses.replace(graph, file=dataclasses.replace(graph.file, sha256="0" * 64))
    changed = dataclasses.replace(bundle, components={"latent_upsampler": {"fp32": other}})
    (found,) = cache.engines(changed, INSTALLED)
    assert found.problem == "was built from another export of the graph"
    (found,) = cache.engines(dataclasses.replace(bundle, components={}), INSTALLED)
    assert "no longer has latent_upsampler in fp32" in found.problem


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": "sm90"}, "target 'sm90': tensorrt_rtx builds for sm80, sm86"),
        ({"texts": ()}, "profile was not given"),
    ],
)
def test_wrong_orders_are_refused_before_any_work(bundle, change, message):
    with pytest.raises(InputError, match=message):
        cache.build(bundle, order(bundle, **change))
    assert not (bundle.root / "engines").exists()


@pytest.mark.parametrize(("precision", "target"), [("fp8", "sm80"), ("fp8", "sm86")])
def test_precisions_that_a_target_lacks_are_refused(precision, target):
    with pytest.raises(InputError, match=f"target {target}: {precision} needs"):
        trt.check_target("tensorrt_rtx", target, precision)


def test_a_graph_that_is_not_the_exported_one_is_refused(bundle):
    graph = bundle.components["latent_upsampler"]["fp32"]
    data = bundle.path(graph.data[0])
    spoil_flip(data)
    with pytest.raises(BundleError, match="the file was changed or damaged: copy the bundle again"):
        cache.build(bundle, order(bundle))
    data.unlink()
    with pytest.raises((BundleError, EngineError), match=r"onnx\.data|could not be written"):
        cache.build(bundle, order(bundle))
    assert not list((bundle.root / "engines").rglob("*.*"))


@pytest.mark.parametrize("kind", ["link", "linked folder", "pipe", "link to the recorded file"])
def test_weights_that_the_bundle_does_not_record_are_not_read(bundle, tmp_path, kind, monkeypatch):
    """TensorRT would follow the link, and wait for the pipe for ever: it is not called."""
    monkeypatch.setattr(trt, "build", None)
    graph = bundle.components["latent_upsampler"]["fp32"]
    path, data = bundle.path(graph.file), bundle.path(graph.data[0])
    outside = tmp_path / "outside"
    outside.mkdir()
    shutil.copyfile(data, outside / "weights")
    other = path.parent / "other"
    {
        "link": lambda: other.symlink_to(outside / "weights"),
        "linked folder": lambda: other.symlink_to(outside),
        "pipe": lambda: os.mkfifo(other),
        "link to the recorded file": lambda: other.symlink_to(data.name),
    }[kind]()
    model = onnx.load(path, load_external_data=False)
    for entry in (e for i in model.graph.initializer for e in i.external_data if e.key == "location"):
        entry.value = "other/weights" if kind == "linked folder" else "other"
    onnx.save(model, path)
    changed = dataclasses.replace(graph, file=record(bundle.root, path))
    components = {**bundle.components, "latent_upsampler": {"fp32": changed}}
    with pytest.raises(BundleError, match="a file that the bundle does not record"):
        cache.build(dataclasses.replace(bundle, components=components), order(bundle))


def test_a_full_disk_leaves_the_old_engine_and_nothing_else(bundle, compiled, monkeypatch):
    old = cache.build(bundle, order(bundle))

    def full(*arguments):
        arguments[6].write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(trt, "build", full)
    with pytest.raises(EngineError, match=r"could not be written to .* \(No space left on device\)"):
        cache.build(bundle, order(bundle, texts=TEXTS[:1]))
    assert sorted(p.name for p in old.path.parent.iterdir()) == sorted(
        [old.path.name, old.path.with_suffix(".json").name]
    )


def build_in_process(folder, texts):
    bundle = read_bundle(folder)
    cache.build(bundle, order(bundle, texts=texts))


def test_two_builds_at_once_do_not_corrupt_each_other(bundle):
    context = multiprocessing.get_context("spawn")
    jobs = [context.Process(target=build_in_process, args=(bundle.root, TEXTS)) for _ in range(2)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert [job.exitcode for job in jobs] == [0, 0]
    (found,) = cache.verify(bundle, INSTALLED)
    assert found.problem == ""


def test_calls_are_tensorrt_s(monkeypatch):
    """Every name that `trt.py` uses is in the installed bindings, which share TensorRT 11's."""
    for owner, names in {
        tensorrt_rtx: ["Builder", "OnnxParser", "ILogger", "LayerType", "DataType", "ProfilingVerbosity"],
        tensorrt_rtx.Builder: ["create_network", "create_builder_config", "create_optimization_profile",
                               "build_serialized_network"],
        tensorrt_rtx.IBuilderConfig: ["add_optimization_profile", "builder_optimization_level", "clear_flag",
                                      "num_compute_capabilities", "set_compute_capability", "set_flag",
                                      "profiling_verbosity"],
        tensorrt_rtx.OnnxParser: ["parse_from_file", "num_errors", "get_error"],
        tensorrt_rtx.BuilderFlag: ["TF32", "WEIGHT_STREAMING"],
        tensorrt_rtx.NetworkDefinitionCreationFlag: ["STRONGLY_TYPED"],
        tensorrt_rtx.LayerType: ["ATTENTION_INPUT"],
        tensorrt_rtx.IAttentionInputLayer: ["attention"],
        tensorrt_rtx.IAttention: ["decomposable"],
        tensorrt_rtx.IOptimizationProfile: ["set_shape"],
        tensorrt_rtx.ParserError: ["node_name", "node_operator", "desc"],
    }.items():  # fmt: skip
        assert [name for name in names if not hasattr(owner, name)] == []


def test_a_graph_that_the_parser_refuses_is_one_sentence(bundle, tmp_path):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a graph")
    parsed = [profiles.parse("64x96x9", bundle.facts)]
    contract = bundle.contract("latent_upsampler")
    with pytest.raises(EngineError, match=r"latent_upsampler: tensorrt_rtx does not read broken\.onnx: \S+"):
        trt.build(broken, contract, "tensorrt_rtx", "sm89", parsed, trt.BuildOptions(), tmp_path / "e")


def test_the_commands_build_list_verify_and_prune(bundle):
    build = ["build-engines", "--backend", "tensorrt_rtx", "--component", "latent_upsampler"]
    done = run(bundle, *build, "--target", "sm89,sm120", "--profile", TEXTS[0], "--profile", TEXTS[1])
    assert done.exit_code == 0, done.stderr
    assert [line.split(":")[0].split("/")[2] for line in done.stdout.splitlines()] == ["sm89", "sm120"]
    assert len(run(bundle, "engines", "list").stdout.splitlines()) == 2
    assert run(bundle, "engines", "verify").exit_code == 0
    victim = next((bundle.root / "engines").rglob("*.engine"))
    spoil_flip(victim)
    checked = run(bundle, "engines", "verify")
    assert checked.exit_code == 1 and "NOT USABLE: its content is not what was built" in checked.stdout
    assert f"deleted {victim.relative_to(bundle.root)}" in run(bundle, "engines", "prune").stdout
    assert run(bundle, "engines", "prune").stdout.strip() == "nothing to delete"
    for options, message in (
        (["--profile", TEXTS[0]], "--target is missing; tensorrt_rtx builds for sm80"),
        (["--target", "sm90", "--profile", TEXTS[0]], "target 'sm90'"),
        (["--target", "sm89", "--profile", "704..256x96x9"], "must rise from the smallest"),
        (["--target", "sm89"], "Missing option '--profile'"),
    ):
        refused = run(bundle, *build, *options)
        assert refused.exit_code == 2 and message in refused.stderr


def test_inspect_shows_layers_attention_and_memory(bundle):
    def shown_by(*arguments):
        done = run(bundle, *arguments)
        assert done.exit_code == 0, done.output
        return done.stdout

    assert shown_by("engines", "inspect").startswith("no engines; build them with")
    shown_by("build-engines", "--backend", "tensorrt_rtx", "--target", "sm89", "--profile", "64x96x9",
        "--component", "latent_upsampler", "--component", "transformer")  # fmt: skip
    shown = shown_by("engines", "inspect")
    attentions = 2 * bundle.facts.transformer.layers
    assert f"attention: 0 of {attentions} as one fused kernel" in shown  # fp32 has none
    assert "matrix_multiply: " in shown and "convolution: " in shown and " float\n" in shown
    assert "64x96x9: inputs and outputs " in shown
    assert "the built layers are seen on a machine with its GPU only" in shown
    assert "convolution" not in shown_by("engines", "inspect", "--component", "transformer")


class FakeInspected:
    """An engine with two layers, as the inspector reports them."""

    num_optimization_profiles = 2

    def create_engine_inspector(self):
        return self

    def get_engine_information(self, form):
        assert form == tensorrt_rtx.LayerInformationFormat.JSON
        layer = {"Name": "a", "Outputs": [{"Name": "x", "Format/Datatype": "BFloat16"}]}
        return json.dumps({"Layers": [layer, {**layer, "TacticName": "sm89_fmha_v2"}]})

    def get_device_memory_size_for_profile_v2(self, index):
        return (index + 1) * 10**6


def test_built_layers_are_counted():
    lines = list(inspection.built_layers(tensorrt_rtx, FakeInspected()))
    assert lines == [
        "built: 2 layers (2 BFloat16), 1 of them fused attention",
        "built: profile 1 takes 1.0 MB of scratch memory",
        "built: profile 2 takes 2.0 MB of scratch memory",
    ]
    for owner, names in (
        (tensorrt_rtx.ICudaEngine, ("num_optimization_profiles", "create_engine_inspector")),
        (tensorrt_rtx.ICudaEngine, ("get_device_memory_size_for_profile_v2",)),
        (tensorrt_rtx.EngineInspector, ("get_engine_information",)),
    ):
        assert all(hasattr(owner, name) for name in names)


class FakeTimings:
    """A builder's configuration that takes timing caches which begin with "good"."""

    def __init__(self):
        self.given = None

    def create_timing_cache(self, data):
        return data

    def set_timing_cache(self, cache, ignore_mismatch):
        assert ignore_mismatch is False
        taken = cache == b"" or cache.startswith(b"good")
        self.given = cache if taken else self.given
        return taken


@pytest.mark.parametrize(
    ("there", "given"), [(None, b""), (b"good one", b"good one"), (b"of another GPU", b"")]
)
def test_timings_of_earlier_builds_are_taken_where_they_fit(tmp_path, there, given):
    path = tmp_path / cache.TIMINGS
    if there is not None:
        path.write_bytes(there)
    config = FakeTimings()
    assert trt._read_timings(config, path) == given == config.given
    assert all(hasattr(tensorrt_rtx.IBuilderConfig, n) for n in ("create_timing_cache", "set_timing_cache"))


def test_rtx_does_not_strip(bundle):
    options = ("--backend", "tensorrt_rtx", "--target", "sm89", "--profile", "64x96x9", "--strip")
    result = run(bundle, "build-engines", *options)
    assert result.exit_code == 2 and "strips engines only where a GPU is" in result.stderr
