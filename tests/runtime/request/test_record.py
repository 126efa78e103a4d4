"""What a video says of how it was made: complete, read back, and refused where it is damaged."""

import hashlib
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from ltxrt.engines.bundle import read_bundle
from ltxrt.engines.errors import InputError
from ltxrt.runtime import ltxv
from ltxrt.runtime.ltxv.pipeline import Pipeline
from ltxrt.runtime.media.read import Condition
from ltxrt.runtime.media.write import Encoding, VideoWriter
from ltxrt.runtime.request import json_form, provenance, record, sources
from ltxrt.runtime.request.fields import SETTINGS
from ltxrt.runtime.request.request import Request

SMALL = {"height": 64, "width": 96, "num_frames": 9, "steps": 3}
TWO = {"two_passes": True, "downscale_factor": 0.67, "second_pass": {"timesteps": (0.7, 0.4)}}
# For each setting another value than SMALL and the preset have, with what else it takes.
OTHERWISE = {
    "prompt": {"prompt": "rain"},
    "negative_prompt": {"negative_prompt": "people", "guidance_scale": 3.0},
    "preset": {"preset": "another"},
    "height": {"height": 63},
    "width": {"width": 95},
    "num_frames": {"num_frames": 8},
    "frame_rate": {"frame_rate": 24.5},
    "reference": {"reference": "diffusers"},
    "image": {"image": "a.png"},
    "image_strength": {"image": "a.png", "image_strength": 0.5},
    "conditions": {"conditions": (("a.png", 8, 1.0),)},
    "input_video": {"input_video": "clip.mp4", "denoise_strength": 0.9},
    "denoise_strength": {"input_video": "clip.mp4", "denoise_strength": 0.8},
    "preparation": {"image": "a.png", "preparation": "plain"},
    "image_noise_scale": {"image_noise_scale": 0.3},
    "steps": {"steps": 4},
    "timesteps": {"steps": None, "timesteps": (1.0, 0.5, 0.2)},
    "skip_initial": {"input_video": "clip.mp4", "skip_initial": 1},
    "skip_final": {"skip_final": 1},
    "sampler": {"sampler": "uniform"},
    "stochastic": {"stochastic": True},
    "guidance_scale": {"guidance_scale": 2.5},
    "stg_scale": {"stg_scale": 0.5},
    "rescaling_scale": {"rescaling_scale": 0.4},
    "guidance_timesteps": {"guidance_timesteps": (1.0, 0.5), "guidance_scale": (2.0, 4.0)},
    "skip_block_list": {"skip_block_list": ((1,),)},
    "stg_mode": {"stg_mode": "attention_skip"},
    "cfg_star": {"cfg_star": True},
    "guidance_rescale": {"guidance_rescale": 0.5},
    "two_passes": TWO,
    "second_pass": {**TWO, "second_pass": {"timesteps": (0.7, 0.3)}},
    "downscale_factor": {**TWO, "downscale_factor": 0.5},
    "adain_factor": {**TWO, "adain_factor": 0.4},
    "seed": {"seed": 7},
    "generator": {"generator": "cuda", "gpu": "H100"},
    "gpu": {"generator": "cuda", "gpu": "A100"},
    "noise_layout": {"noise_layout": "diffusers"},
    "noise_dtype": {"noise_dtype": "bf16"},
    "noise": {"noise": "noise.npy"},
    "max_tokens": {"max_tokens": 100},
    "tone_map": {"tone_map": 0.6},
    "decode_timestep": {"decode_timestep": 0.1},
    "decode_noise_scale": {"decode_noise_scale": 0.1},
    "vae_memory": {"vae_memory": 2**30},
}


@pytest.fixture
def folder(tmp_path):
    for name, shade in (("a.png", 9), ("b.png", 200)):
        Image.new("RGB", (96, 64), (shade, 80, 30)).save(tmp_path / name)
    with VideoWriter(tmp_path / "clip.mp4", 64, 96, 24, {}) as writer:
        for i in range(9):
            writer.write(np.full((64, 96, 3), 20 * i, np.uint8))
    np.save(tmp_path / "noise.npy", np.zeros((1, 16, 2, 2, 3), np.float32))
    return tmp_path


@pytest.fixture
def bundle(two_pass_bundle):
    """A bundle with two presets, which are alike."""
    opened = read_bundle(two_pass_bundle)
    return replace(opened, presets={**opened.presets, "another": opened.presets["default"]})


@pytest.fixture
def told(bundle, folder):
    """Settings → the metadata of the video that they would make; nothing is run."""
    pipeline = Pipeline(bundle)

    def make(precision=None, **values):
        for name in ("image", "input_video", "noise"):
            if isinstance(values.get(name), str):
                values[name] = folder / values[name]
        if "conditions" in values:
            values["conditions"] = tuple(Condition(folder / n, *rest) for n, *rest in values["conditions"])
        given = {**SMALL, "two_passes": False, **values}
        request = Request(given.pop("prompt", "fog"), **{k: v for k, v in given.items() if v is not None})
        inputs = provenance.inputs(request)
        return request, ltxv.metadata(pipeline.plan(request), pipeline.engines, inputs)

    return make


def test_the_table_of_this_test_has_every_setting():
    assert set(OTHERWISE) == set(SETTINGS)


def test_two_videos_that_differ_never_hold_equal_metadata(told):
    others = {"image": {"image": "b.png"}, "place": {"conditions": (("a.png", 0, 1.0),)}}
    cases = {**OTHERWISE, **{f"another {name}": values for name, values in others.items()}, "nothing": {}}
    documents = {name: told(**values)[1][record.KEY] for name, values in cases.items()}
    assert len(set(documents.values())) == len(cases)


@pytest.mark.parametrize("name", OTHERWISE)
def test_what_a_video_says_makes_the_same_request(told, bundle, folder, name):
    request, metadata = told(**OTHERWISE[name])
    with VideoWriter(folder / "v.gif", 8, 8, 8, metadata) as writer:
        writer.write(np.zeros((8, 8, 3), np.uint8))
    found = record.read(folder / "v.gif")
    fields = {**json_form.given(found.request), **sources.fields(found, [folder])}
    again = Request(**fields)
    assert (again.files(), again.conditions) == (request.files(), request.conditions)
    assert ltxv.completed_by(bundle, again) == ltxv.completed_by(bundle, request) == dict(found.completed)
    assert found.pinned(ltxv.completed_by(bundle, again)) == {}


def test_other_presets_are_found_and_pinned(told, bundle, folder):
    """A bundle exported again, with other defaults: the video's own are taken."""
    preset = bundle.presets["default"]
    first = replace(preset.passes[0], timesteps=(1.0, 0.5), steps=2, guidance_scale=(9.0,), skip_final=0)
    changed = replace(preset, passes=(first,), frame_rate=12.0, negative_prompt="x", max_tokens=77)
    other = replace(bundle, presets={"default": changed})
    for values in ({}, {"two_passes": True, "downscale_factor": 0.67}):
        request, metadata = told(**values)
        found = _read(folder, metadata)
        pins = found.pinned(ltxv.completed_by(other, request))
        assert {"guidance_scale", "frame_rate", "negative_prompt", "max_tokens"} <= pins.keys()
        again = Request(**json_form.given({**found.request, **pins}))
        assert ltxv.completed_by(other, again) == found.completed


def _read(folder, metadata):
    with VideoWriter(folder / "again.gif", 8, 8, 8, metadata) as writer:
        writer.write(np.zeros((8, 8, 3), np.uint8))
    return record.read(folder / "again.gif")


@pytest.mark.parametrize("name", ["v.mp4", "v.webm", "v.mkv", "v.gif", "v.npz", "frames"])
def test_every_format_holds_it(told, folder, name):
    _, metadata = told(prompt="a “wave”\n, 波 and \\ so on", image="a.png")
    with VideoWriter(folder / name, 32, 32, 8, metadata) as writer:
        writer.write(np.zeros((32, 32, 3), np.uint8))
    found = record.read(folder / name)
    assert found.request["prompt"] == "a “wave”\n, 波 and \\ so on"
    assert [(one.setting, one.name) for one in found.sources] == [("image", "a.png")]
    assert (found.backend, found.precisions["transformer"]) == ("onnxruntime", "fp32")
    assert found.encoding == Encoding().resolved(folder / name)


def test_files_are_found_by_their_content_wherever_they_are_and_whatever_they_are_called(told, folder):
    found = _read(folder, told(image="a.png", conditions=(("b.png", 8, 0.5),))[1])
    there = folder / "there"
    there.mkdir()
    shutil.move(folder / "a.png", there / "renamed.png")
    shutil.copy(folder / "b.png", folder / "a.png")  # another file under the old name
    fields = sources.fields(found, sources.folders(found, [there]))
    assert fields["image"] == there / "renamed.png"
    assert fields["conditions"][0].frame == 8 and fields["conditions"][0].strength == 0.5
    with pytest.raises(InputError, match=r"was made from a\.png \(SHA-256 [0-9a-f]{12}…\), which is not in"):
        sources.fields(found, [folder])
    assert "image" not in sources.fields(found, [folder], ["image"])
    with pytest.raises(InputError, match=r"sources .*absent: no such folder"):
        sources.folders(found, [folder / "absent"])


def test_pixels_of_a_program_are_not_found_and_said_to_be(told, folder):
    found = _read(folder, told(image=np.zeros((8, 8, 3), np.uint8))[1])
    with pytest.raises(InputError, match=r"array uint8 \(8, 8, 3\), pixels that a program gave; give it by"):
        sources.fields(found, [folder])


DAMAGE = {
    "no JSON": lambda text: text[:-5],
    "a later format": lambda text: text.replace('"format": 1', '"format": 2'),
    "an unknown setting": lambda text: text.replace('"steps"', '"stops"'),
    "a wrong value": lambda text: text.replace('"height": 64', '"height": 9999999'),
    "another type": lambda text: text.replace('"height": 64', '"height": "64"'),
    "a folder": lambda text: text.replace('"a.png"', '"../a.png"'),
    "a folder of Windows": lambda text: text.replace('"a.png"', '"c:\\\\a.png"'),
    "no hash": lambda text: text.replace(hashed(b"a"), "../../etc/passwd"),
    "a file among settings": lambda text: text.replace(
        '"request": {', '"request": {"image": "/etc/passwd", '
    ),
    "conditions among settings": lambda text: text.replace(
        '"completed": {', '"completed": {"conditions": [{"path": "/etc/passwd"}], '
    ),
    "an unknown use": lambda text: text.replace('"for": "image"', '"for": "model"'),
    "a list for an object": lambda text: text.replace('"request": {', '"request": [], "old": {'),
    "a twin": lambda text: text.replace('"request": {', '"request": {"seed": 1, "seed": 2, '),
    "too many": lambda text: json.dumps({**json.loads(text), "sources": [{}] * 1001}),
    "nothing": lambda _: "null",
}


def hashed(data):
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_document_is_refused_in_a_sentence(told, folder, name):
    (folder / "a.png").write_bytes(b"a")
    _, metadata = told()
    inputs = [{"for": "image", "name": "a.png", "sha256": hashed(b"a"), "bytes": 1, "strength": 1.0}]
    text = json.loads(metadata[record.KEY])
    text = json.dumps({**text, "sources": inputs})
    assert _read(folder, {record.KEY: text}).sources[0].name == "a.png"
    damaged = DAMAGE[name](text)
    assert damaged != text
    with pytest.raises(
        InputError, match=r"again\.gif: what it says of how it was made cannot be read: "
    ) as error:
        _read(folder, {record.KEY: damaged})
    assert len(str(error.value)) < 600 and "\n" not in str(error.value)


def test_a_document_longer_than_any_is_refused_unread(told, folder):
    with pytest.raises(InputError, match=r"v\.mkv: what it says of how it was made is longer than any"):
        _, metadata = told()
        with VideoWriter(
            folder / "v.mkv", 32, 32, 8, {record.KEY: " " * (8 << 20) + metadata["ltxrt"]}
        ) as out:
            out.write(np.zeros((32, 32, 3), np.uint8))
        record.read(folder / "v.mkv")


def test_a_video_of_another_program_says_nothing(folder):
    with pytest.raises(InputError, match=r"clip\.mp4: does not say how it was made"):
        record.read(folder / "clip.mp4")


def test_what_is_recorded_names_no_folder(told, folder):
    text = json.dumps(told(image="a.png", noise="noise.npy")[1])
    assert str(folder) not in text and folder.name not in text
