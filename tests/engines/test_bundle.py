from __future__ import annotations

import dataclasses
import json
import re
import shutil
from dataclasses import replace

import pytest

from ltxrt.engines import bundle as bundles
from ltxrt.engines.bundle import (
    add_to_bundle,
    merge,
    read_bundle,
    read_manifest,
    record,
    verify,
    write_bundle,
)
from ltxrt.engines.errors import BundleError, InputError
from ltxrt.engines.parsing.schema import to_json


@pytest.fixture
def edit(bundle):
    """A function that changes the bundle's manifest: edit("facts.vae", None)."""

    def change(place, value):
        path = bundle.root / "bundle.json"
        data = json.loads(path.read_text())
        *parents, last = place.split(".")
        target = data
        for key in parents:
            target = target[key]
        target[last] = value
        path.write_text(json.dumps(data))

    return change


def test_a_bundle_survives_its_folder(bundle):
    assert read_bundle(bundle.root) == bundle
    assert read_bundle(str(bundle.root)) == bundle
    verify(bundle)


def test_a_bundle_may_be_moved(bundle, tmp_path):
    shutil.move(bundle.root, tmp_path / "elsewhere")
    moved = read_bundle(tmp_path / "elsewhere")
    assert moved.path(moved.graph("transformer").file).is_file()
    verify(moved)


def test_no_folder(tmp_path):
    with pytest.raises(BundleError, match="gone: no such folder"):
        read_bundle(tmp_path / "gone")


def test_a_file_instead_of_the_folder(bundle):
    with pytest.raises(BundleError, match=r"not a folder; give the folder that holds bundle\.json"):
        read_bundle(bundle.root / "bundle.json")


def test_a_folder_without_manifest_is_half_written(bundle):
    (bundle.root / "bundle.json").unlink()
    with pytest.raises(BundleError, match="half-written or not a bundle; run ltx-export onnx again"):
        read_bundle(bundle.root)


@pytest.mark.parametrize("text", ["", "{", "\xff", "[" * 100_000, "1" * 5000])
def test_what_is_not_json(bundle, text):
    (bundle.root / "bundle.json").write_text(text, encoding="latin-1")
    with pytest.raises(BundleError, match="not valid JSON"):
        read_bundle(bundle.root)


@pytest.mark.parametrize("text", ["[]", "{}", '{"schema": "1"}', '{"schema": true}', '{"schema": 0}'])
def test_what_is_no_manifest(bundle, text):
    (bundle.root / "bundle.json").write_text(text)
    with pytest.raises(BundleError, match="no schema number"):
        read_bundle(bundle.root)


def test_a_manifest_is_bounded(bundle, monkeypatch):
    monkeypatch.setattr(bundles, "MANIFEST_LIMIT", 100)
    with pytest.raises(BundleError, match=r"larger than .* MB"):
        read_bundle(bundle.root)


def test_a_newer_schema_asks_for_an_upgrade_before_anything_else(bundle, edit):
    edit("new_field", 1)
    edit("schema", 2)
    with pytest.raises(
        BundleError, match=r"made by a newer ltxrt \(bundle schema 2, this one reads 1\); upgrade"
    ):
        read_bundle(bundle.root)


@pytest.mark.parametrize(
    "place, value, message",
    [
        ("colour", "red", r"bundle\.json: unknown field colour"),
        ("facts.transformer.colour", 1, r"bundle\.json\.facts\.transformer: unknown field colour"),
        ("version", 2, r"bundle\.json\.version: expected str, got 2"),
        ("components.transformer.fp32.data", {}, r"components\.transformer\.fp32\.data: expected a list"),
        ("family", "other", "model family 'other'; this ltxrt runs ltx-video"),
        ("presets", {}, "presets has no 'default'"),
        ("facts.text_encoder", None, r"text_encoder needs facts\.text_encoder, which is missing"),
        ("components.unet", {}, "no component is named 'unet'; they are text_encoder"),
        ("tokenizer.sha256", "../../x", "the record of tokenizer.json has no valid size and SHA-256"),
        ("presets.default.passes", [], r"presets\.default\.passes: must have 1 to 2 entries"),
        ("presets.default.height", 0, r"default\.height: must be between 1 and 8192"),
        ("presets.default.negative_prompt", "x" * 70_000, "at most 65536 characters"),
        ("tokenizer.bytes", -1, r"bundle\.json\.tokenizer\.bytes: must be between 0 and"),
    ],
)
def test_a_wrong_field_is_refused(bundle, edit, place, value, message):
    edit(place, value)
    with pytest.raises(BundleError, match=message):
        read_bundle(bundle.root)


def test_a_preset_that_no_machine_has_the_memory_for_is_refused(bundle, edit):
    for name, value in (("height", 8192), ("width", 8192), ("num_frames", 4097)):
        edit(f"presets.default.{name}", value)
    with pytest.raises(BundleError, match="8192x8192 of 4097 frames is larger than any release's preset"):
        read_bundle(bundle.root)


def test_a_graph_that_needs_no_memory_is_refused(bundle, edit):
    edit(
        "components.transformer.fp32.memory", {"fixed_bytes": 0, "bytes_per_cell": 0, "elements_per_cell": 1}
    )
    with pytest.raises(BundleError, match=r"memory\.bytes_per_cell: must be between 1 and"):
        read_bundle(bundle.root)


def test_what_could_not_be_read_again_is_not_written(bundle):
    before = (bundle.root / "bundle.json").read_bytes()
    wrong = dataclasses.replace(
        bundle.facts, scheduler=dataclasses.replace(bundle.facts.scheduler, shift="x")
    )
    with pytest.raises(BundleError, match="shift: must be sd3"):
        write_bundle(bundle.root, dataclasses.replace(bundle, facts=wrong))
    assert (bundle.root / "bundle.json").read_bytes() == before


@pytest.mark.parametrize("place", ["facts.transformer.in_channels", "facts.transformer.layers"])
def test_facts_that_do_not_fit_the_graphs_are_refused(bundle, edit, place):
    edit(place, 9)
    with pytest.raises(BundleError, match="transformer fp32 was exported for another contract"):
        read_bundle(bundle.root)


def test_a_contract_that_does_not_fit_the_facts_is_refused(bundle, edit):
    edit("components.text_encoder.fp32.contract.inputs", [])
    with pytest.raises(BundleError, match="text_encoder fp32 was exported for another contract"):
        read_bundle(bundle.root)


def test_a_cut_file_is_named(bundle):
    path = bundle.root / "onnx/transformer.fp32.data"
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-1])
    message = (
        f"onnx/transformer.fp32.data has {size - 1} bytes, bundle.json says {size}; the copy is incomplete"
    )
    with pytest.raises(BundleError, match=re.escape(message)):
        read_bundle(bundle.root)


@pytest.mark.parametrize(
    "name", ["tokenizer.json", "onnx/transformer.fp32.onnx", "onnx/text_encoder.fp32.data"]
)
def test_a_renamed_file_is_missing(bundle, name):
    (bundle.root / name).rename(bundle.root / "other")
    with pytest.raises(BundleError, match=re.escape(f"{name} is missing; copy the whole bundle again")):
        read_bundle(bundle.root)


def test_a_folder_is_no_file(bundle):
    (bundle.root / "tokenizer.json").unlink()
    (bundle.root / "tokenizer.json").mkdir()
    with pytest.raises(BundleError, match=r"tokenizer\.json is missing"):
        read_bundle(bundle.root)


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "onnx/../../x", "C:\\x"])
@pytest.mark.parametrize("place", ["tokenizer", "components.transformer.fp32.file"])
def test_a_path_that_escapes_is_refused(bundle, edit, place, path):
    edit(f"{place}.path", path)
    with pytest.raises(BundleError, match="leaves the folder"):
        read_bundle(bundle.root)


def test_a_link_that_escapes_is_refused(bundle, tmp_path):
    path = bundle.root / "onnx/transformer.fp32.data"
    path.rename(tmp_path / "outside")
    path.symlink_to(tmp_path / "outside")
    with pytest.raises(BundleError, match=r"leaves the folder .* through a symbolic link"):
        read_bundle(bundle.root)


def test_verify_finds_a_changed_file_of_the_same_size(bundle):
    path = bundle.root / "onnx/transformer.fp32.data"
    path.write_bytes(bytes(len(path.read_bytes())))
    again = read_bundle(bundle.root)
    with pytest.raises(BundleError, match=r"onnx/transformer\.fp32\.data has SHA-256 .* changed or damaged"):
        verify(again)


def test_writing_refuses_what_reading_would(bundle):
    (bundle.root / "tokenizer.json").unlink()
    before = (bundle.root / "bundle.json").read_bytes()
    with pytest.raises(BundleError, match=r"tokenizer\.json is missing"):
        write_bundle(bundle.root, replace(bundle, version="other"))
    assert (bundle.root / "bundle.json").read_bytes() == before


def test_the_manifest_does_not_know_its_folder(bundle):
    assert set(json.loads((bundle.root / "bundle.json").read_text())) == set(to_json(bundle)) - {
        "root",
        "preview",
    }
    assert str(bundle.root) not in (bundle.root / "bundle.json").read_text()


def test_the_first_component_makes_the_bundle(tmp_path, manifest, put_graph):
    graph = put_graph(tmp_path, "transformer")
    added = add_to_bundle(tmp_path, replace(manifest, components={"transformer": {"fp32": graph}}))
    assert read_bundle(tmp_path) == added
    assert list(added.components) == ["transformer"]


def test_a_component_is_added_beside_the_others(bundle, manifest, put_graph):
    facts = replace(manifest.facts, text_encoder=None)  # what an export of the transformer alone knows
    fp16 = put_graph(bundle.root, "transformer", "fp16")
    addition = replace(
        manifest,
        facts=facts,
        produced_by={"onnx": "2"},
        components={"transformer": {"fp16": fp16}},
    )
    added = add_to_bundle(bundle.root, addition)
    assert read_bundle(bundle.root) == added
    assert list(added.components["transformer"]) == ["fp32", "fp16"]
    assert added.components["text_encoder"] == bundle.components["text_encoder"]
    assert added.facts == bundle.facts and added.tokenizer == bundle.tokenizer
    assert added.produced_by == {"ltxrt": "0", "onnx": "2"}


def test_an_export_again_replaces_a_damaged_component(bundle, manifest, put_graph):
    (bundle.root / "onnx/transformer.fp32.data").write_bytes(b"cut")
    graph = put_graph(bundle.root, "transformer", text=LARGER)
    with pytest.raises(BundleError, match=r"transformer\.fp32\.onnx has"):
        read_bundle(bundle.root)
    add_to_bundle(bundle.root, replace(manifest, components={"transformer": {"fp32": graph}}))
    verify(read_bundle(bundle.root))


LARGER = """
    a_graph_of_another_size (float[B,N,3] latents) => (float[B,N,3] velocity)
    <float[3] weight = {1, 2, 3}> { velocity = Mul (latents, weight) }"""


def test_another_checkpoint_is_refused_before_the_work(bundle, manifest):
    transformer = replace(manifest.facts.transformer, layers=48)
    other = replace(manifest, facts=replace(manifest.facts, transformer=transformer))
    message = r"another checkpoint \(facts.transformer.layers is 2 there, 48 here\); export to a new folder"
    with pytest.raises(BundleError, match=message):
        merge(bundle.root, read_manifest(bundle.root), other)
    with pytest.raises(BundleError, match="version is 'tiny' there, 'huge' here"):
        add_to_bundle(bundle.root, replace(manifest, version="huge"))
    assert read_bundle(bundle.root) == bundle


def test_the_precision_is_the_named_the_only_or_the_preferred(bundle, put_graph):
    assert bundle.precision("transformer") == "fp32"
    graphs = {p: put_graph(bundle.root, "transformer", p) for p in ("bf16", "fp16", "fp32")}
    many = replace(bundle, components={"transformer": graphs})
    assert many.precision("transformer") == "fp32"
    assert many.precision("transformer", prefer=("bf16", "fp32")) == "bf16"
    assert many.graph("transformer", "fp16") == graphs["fp16"]
    only = replace(bundle, components={"transformer": {"bf16": graphs["bf16"]}})
    assert only.graph("transformer") == graphs["bf16"]
    with pytest.raises(InputError, match="transformer is in bf16, fp16, fp32; name the precision"):
        many.precision("transformer", prefer=("fp8",))


def test_what_a_bundle_lacks_comes_with_the_command_that_adds_it(bundle):
    message = (
        "the bundle has no vae_encoder, which image conditioning needs; add it with: "
        f"ltx-export onnx CHECKPOINT --component vae_encoder --output {bundle.root}"
    )
    with pytest.raises(InputError, match=re.escape(message)):
        bundle.graph("vae_encoder")
    message = (
        "the bundle has transformer in fp32, not in fp8; add it with: ltx-export onnx CHECKPOINT "
        f"--component transformer --precision fp8 --scales FILE --output {bundle.root}"
    )
    with pytest.raises(InputError, match=re.escape(message)):
        bundle.graph("transformer", "fp8")
    message = "not in fp8; only the transformer is quantised: give precision transformer=fp8"
    with pytest.raises(InputError, match=re.escape(message)):
        bundle.graph("text_encoder", "fp8")
    with pytest.raises(InputError, match="not in int3; precisions are fp32, fp16, bf16, fp8, fp8-fp16"):
        bundle.graph("transformer", "int3")
    with pytest.raises(InputError, match="no component is named 'unet'; they are text_encoder, transformer"):
        bundle.graph("unet")


def test_a_record_is_of_a_file_inside(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "f").write_bytes(b"abc")
    assert record(tmp_path, tmp_path / "a" / "f").path == "a/f"
    (tmp_path / "a" / "link").symlink_to("/etc/hosts")
    with pytest.raises(BundleError, match="symbolic link"):
        record(tmp_path, tmp_path / "a" / "link")
