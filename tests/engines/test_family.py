"""A family that is not LTX-Video, registered by a row: two streams, two outputs, no T5, sizes of its own."""

import json
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
import onnx
import pytest

from ltxrt.engines import families
from ltxrt.engines.backend import load_engine
from ltxrt.engines.bundle import MANIFEST, SCHEMA, Graph, Manifest, read_bundle, record, write_bundle
from ltxrt.engines.contract import Contract, Tensor
from ltxrt.engines.errors import BundleError, InputError
from ltxrt.engines.family import Component, Family, ProfileForm
from ltxrt.engines.parsing.schema import Within
from ltxrt.engines.precision import PRECISIONS
from ltxrt.engines.tensorrt import build as trt
from ltxrt.engines.tensorrt import cache, inspect, profiles


@dataclass(frozen=True)
class CoreFacts:
    channels: Annotated[int, Within(1, 64)]
    sound_rate: Annotated[int, Within(1, 100)]  # latents of sound in a second


@dataclass(frozen=True)
class DuetFacts:
    core: CoreFacts | None
    speech: CoreFacts | None


@dataclass(frozen=True)
class DuetPreset:
    seconds: float


def core(facts):
    """Pictures (N) and sound (A) hear each other; words (W) are padded to eight."""
    streams = [Tensor(n, "f32", ("B", s, facts.channels)) for n, s in (("picture", "N"), ("sound", "A"))]
    words = (Tensor("words", "f32", ("B", "W", facts.channels)), Tensor("said", "bool", ("B", "W")))
    outputs = tuple(Tensor(f"{t.name}_velocity", "f32", t.shape) for t in streams)
    return Contract("core", (*streams, *words), outputs, padding={"W": 8}, tokens=("N", "A"))


def speech(facts):
    sound = Tensor("sound", "f32", ("B", facts.channels, "A"))
    return Contract("speech", (sound,), (Tensor("wave", "f32", ("B", "240*A")),), tiles={"A": 2})


def ranges(sizes, facts, max_tokens, _extra):
    """The sound's length follows the seconds."""
    for side in sizes["side"]:
        if side % 2:
            raise InputError(f"side {side} must be even; nearest are {side - 1} and {side + 1}")
    pictures = tuple(side * side // 4 for side in sizes["side"])
    sound = tuple(seconds * facts.core.sound_rate for seconds in sizes["seconds"])
    return {"B": (1, 1, 4), "N": pictures, "A": sound, "W": (1, max_tokens, max_tokens)}


DUET = Family(
    name="duet",
    title="Duet",
    facts=DuetFacts,
    preset=DuetPreset,
    components={
        "core": Component("core", core, "which moves both", precisions=PRECISIONS),
        "speech": Component(
            "speech", speech, "which speaks", "--voice FILE", dispensable=("mute", "be silent")
        ),
    },
    profile=ProfileForm(("side", "seconds"), ("8x3", "4..8x1..3"), ranges),
    preset_problem=lambda preset, facts: "it is too long" if preset.seconds > 60 else "",
)
FACTS = DuetFacts(CoreFacts(4, 5), None)
GRAPH = """<ir_version: 10, opset_import: ["": 23]>
    core (float[B,N,4] picture, float[B,A,4] sound, float[B,W,4] words, bool[B,W] said)
        => (float[B,N,4] picture_velocity, float[B,A,4] sound_velocity)
    <float[4] weight = {1, 2, 3, 4}, int64[1] one = {1}, int64[1] last = {2}> {
        counted = Cast <to = 1> (said)
        column = Unsqueeze (counted, last)
        heard = Mul (words, column)
        text = ReduceSum (heard, one)
        tune = ReduceMean (sound, one)
        scene = ReduceMean (picture, one)
        scaled = Mul (picture, weight)
        moved = Add (scaled, tune)
        picture_velocity = Add (moved, text)
        sound_velocity = Add (sound, scene)
    }"""


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setitem(families.FAMILIES, DUET.name, DUET)


@pytest.fixture
def bundle(tmp_path):
    root = tmp_path / "bundle"
    (root / "onnx").mkdir(parents=True)
    path = root / "onnx" / "core.fp32.onnx"
    model = onnx.parser.parse_model(GRAPH)
    for tensor in model.graph.initializer:  # only raw bytes can be external, and the parser makes none
        tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor), tensor.name))
    onnx.save(model, path)
    graph = Graph(record(root, path), (), None, families.derive("core", FACTS).to_json(), None)
    presets = {"default": DuetPreset(2.5), "mute": DuetPreset(1.0)}
    facts = {"schema": SCHEMA, "family": "duet", "version": "1", "licence": "none", "facts": FACTS}
    made = {"produced_by": {}, "source": {}, "presets": presets, "tokenizer": None}
    return write_bundle(root, Manifest(**facts, **made, components={"core": {"fp32": graph}}))


def feed(**sizes):
    return families.derive("core", FACTS).sample({"B": 2, **sizes}, np.random.default_rng(0))


def changed(bundle, **fields):
    path = bundle.root / MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
    return bundle.root


def test_a_bundle_of_it_reads_as_its_own_facts_and_presets(bundle):
    read = read_bundle(bundle.root)
    assert read.model is DUET and read.facts == FACTS and read.presets["mute"] == DuetPreset(1.0)
    assert read.contract("core").symbols == ("B", "N", "A", "W")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"family": "trio"}, "model family 'trio'; this ltxrt runs ltx-video, duet"),
        ({"family": "ltx-video"}, r"facts: unknown field core, speech"),
        ({"family": 3}, "family: expected str, got 3"),
        ({"facts": {"core": {"channels": 65, "sound_rate": 5}, "speech": None}}, "must be between 1 and 64"),
        ({"facts": {"core": None, "speech": None}}, r"core needs facts\.core, which is missing"),
        ({"presets": {"default": {"seconds": 61.0}}}, r"presets\.default: it is too long; run ltx-export"),
    ],
)
def test_what_is_not_of_the_family_is_refused(bundle, fields, message):
    with pytest.raises(BundleError, match=message):
        read_bundle(changed(bundle, **fields))


def test_its_components_are_called_by_their_own_names(bundle):
    with pytest.raises(InputError, match="no component is named 'transformer'; they are core, speech"):
        load_engine(bundle, "transformer")
    with pytest.raises(
        InputError,
        match=r"has no speech, which speaks; add it with: .* --voice FILE --component speech --output .*; "
        "or be silent: preset mute",
    ):
        load_engine(bundle, "speech")
    assert DUET.quantised() == ("core",) and "speech" in families.component_names()


def test_onnx_runtime_gives_both_streams(bundle):
    given = feed(N=6, A=9, W=3)
    given["said"][:, 2] = False
    with load_engine(bundle, "core") as engine:
        outputs = engine(**given)
    picture = given["picture"] * np.float32([1, 2, 3, 4]) + given["sound"].mean(1, keepdims=True)
    picture += given["words"][:, :2].sum(1, keepdims=True)
    np.testing.assert_allclose(outputs["picture_velocity"], picture, rtol=1e-5, atol=1e-5)
    sound = given["sound"] + given["picture"].mean(1, keepdims=True)
    np.testing.assert_allclose(outputs["sound_velocity"], sound, rtol=1e-5, atol=1e-5)


def test_its_profiles_are_sizes_of_its_own():
    profile = profiles.parse("4..8x1..3", FACTS, max_tokens=16)
    assert profile.ranges == {"B": (1, 1, 4), "N": (4, 16, 16), "A": (5, 15, 15), "W": (1, 16, 16)}
    contract = families.derive("core", FACTS)
    assert profile.shapes(contract)["sound"] == ((1, 5, 4), (1, 15, 4), (4, 15, 4))
    spoken = families.derive("speech", replace(FACTS, speech=FACTS.core))
    assert profile.ranges_of(spoken)["A"] == (2, 15, 15), "down to a tile"
    for text, message in (
        ("8x3x1", "must be SIDExSECONDS, as in 8x3 or 4..8x1..3"),
        ("7x3", "'7x3': side 7 must be even; nearest are 6 and 8"),
    ):
        with pytest.raises(InputError, match=message):
            profiles.parse(text, FACTS)
    without = {"text": "8x3", "ranges": {"B": [1, 1, 4], "N": [1, 2, 3], "W": [1, 2, 3]}}
    with pytest.raises(BundleError, match="ranges of A"):
        profiles.from_json(without, contract)


def test_rtx_builds_an_engine_for_them(bundle):
    profile = profiles.parse("4..8x1..3", FACTS, max_tokens=16)
    order = cache.BuildOrder("core", "fp32", "tensorrt_rtx", "sm89", (profile,), trt.BuildOptions())
    found = cache.build(bundle, order)
    assert found.path.name.startswith("core.fp32.") and found.path.stat().st_size > 1000
    assert any(line.startswith("4..8x1..3: inputs and outputs") for line in inspect.describe(bundle, found))
    assert cache.build(bundle, order).path == found.path
    found.path.write_bytes(b"half")
    gone = cache.prune(bundle, cache.verify(bundle, trt.installed()))
    assert {path.suffix for path in gone} == {".engine", ".json"}
