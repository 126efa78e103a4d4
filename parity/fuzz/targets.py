"""Every reader of untrusted input, each as far as it goes without an engine.

A target makes what it needs in an empty folder and gives back an attempt: one seeded input, read to the end.
"""

from __future__ import annotations

import contextlib
import json
import random
from pathlib import Path

from ltxrt.engines import verification
from ltxrt.engines.bundle import read_bundle
from ltxrt.engines.errors import InputError
from ltxrt.engines.parsing.graph_check import check_graph
from ltxrt.engines.tensorrt import cache, profiles
from ltxrt.engines.tensorrt import inspect as inspection
from ltxrt.export.checkpoint.safetensors import SafetensorsFile
from ltxrt.export.ltxv.facts import noise_maps
from ltxrt.export.ltxv.open import open_checkpoint
from ltxrt.parity.check import results
from ltxrt.parity.fuzz import material, mutate
from ltxrt.parity.fuzz.media_files import media_files
from ltxrt.parity.fuzz.runner import Attempt, Target
from ltxrt.parity.report import render
from ltxrt.runtime.ltxv.pipeline import Pipeline
from ltxrt.runtime.ltxv.prompt import Tokenizer
from ltxrt.runtime.ltxv.provenance import completed_by
from ltxrt.runtime.ltxv.settings import complete
from ltxrt.runtime.media import Condition
from ltxrt.runtime.media import read as media
from ltxrt.runtime.request import fields, json_form, options, provenance, record, sources, yaml_file
from ltxrt.runtime.request.request import Request
from ltxrt.runtime.vae import tiling

PROMPT = "waves break on a rocky shore, ﬁne weather 🌊"
SIZE_OF_WEIGHTS = 1 << 40  # holes of the sparse file; a header that asks for more is refused


def headers(folder: Path) -> Attempt:
    """safetensors headers."""
    header, path = material.checkpoint(folder), folder / "x.safetensors"

    def attempt(rng: random.Random) -> None:
        text = mutate.json_bytes(rng, header)
        length = len(text) if rng.random() < 0.95 else rng.getrandbits(rng.choice((8, 24, 64)))
        _write_weights(path, length.to_bytes(8, "little"), text)
        SafetensorsFile(path)

    return attempt


def configs(folder: Path) -> Attempt:
    """Checkpoint configs, in the header of a file whose tensors are valid: layout, version and parameters."""
    header, path = json.loads(material.checkpoint(folder)), folder / "x.safetensors"
    config = header["__metadata__"]["config"].encode()

    def attempt(rng: random.Random) -> None:
        header["__metadata__"]["config"] = mutate.json_bytes(rng, config).decode("utf-8", "replace")
        text = json.dumps(header).encode()
        _write_weights(path, len(text).to_bytes(8, "little"), text)
        checkpoint = open_checkpoint(path)
        if checkpoint.vae is not None:
            noise_maps(checkpoint.vae.config)

    return attempt


def _write_weights(path: Path, length: bytes, header: bytes) -> None:
    """The file, with a hole as large as the header's last tensor wants where weights would be."""
    end = 0
    with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError):
        spans = [e["data_offsets"][1] for n, e in json.loads(header).items() if n != "__metadata__"]
        end = max(spans, default=0)
    with path.open("wb") as file:
        file.write(length + header)
        if type(end) is int and 0 <= end <= SIZE_OF_WEIGHTS:
            file.truncate(8 + len(header) + end)


def manifests(folder: Path) -> Attempt:
    """bundle.json, and all that a request computes from it before the first engine is loaded."""
    material.bundle(folder)
    path = folder / "bundle.json"
    whole = path.read_bytes()

    def attempt(rng: random.Random) -> None:
        path.write_bytes(mutate.json_bytes(rng, whole))
        with Pipeline(read_bundle(folder), backend="onnxruntime") as pipeline:
            for preset in list(pipeline.bundle.presets)[:4]:
                plan = pipeline.plan(Request(PROMPT, preset=preset))
            pipeline.unproved(plan)

    return attempt


def records(folder: Path) -> Attempt:
    """Engine records: listing, looking for one, its profiles, what `engines inspect` prints."""
    whole = material.bundle(folder)
    sound = material.engine_record(whole)
    place = folder / "engines" / sound.backend / sound.target
    place.mkdir(parents=True)
    path = place / sound.name
    path.write_bytes(material.ENGINE)
    text = material.json_of(sound)

    def attempt(rng: random.Random) -> None:
        path.with_suffix(".json").write_bytes(mutate.json_bytes(rng, text))
        (found,) = cache.verify(whole, {})
        if found.record is None:
            raise InputError(found.problem)
        list(inspection.describe(whole, found))
        contract = whole.contract(found.record.component)
        [profiles.from_json(p, contract) for p in found.record.profiles]

    return attempt


def reports(folder: Path) -> Attempt:
    """Parity reports: what a run accepts as verification, and the page that is made of one."""
    whole = material.bundle(folder)
    text = material.report(folder)
    path = folder / verification.REPORT
    path.parent.mkdir()

    def attempt(rng: random.Random) -> None:
        path.write_bytes(mutate.json_bytes(rng, text))
        verification.unproved(whole, "onnxruntime", {"transformer": "fp32"})
        render(results.read(path))

    return attempt


SETTINGS = (
    """pipeline_type: multi-scale
downscale_factor: 0.6666666
stochastic_sampling: false
image_cond_noise_scale: 0.15
first_pass:
  guidance_scale: [1, 1, 6, 8, 6, 1, 1]
  stg_scale: [0, 0, 4, 4, 4, 2, 1]
  rescaling_scale: [1, 1, 0.5, 0.5, 1, 1, 1]
  guidance_timesteps: [1.0, 0.996, 0.9933, 0.9850, 0.9767, 0.9008, 0.6180]
  skip_block_list: [[], [0, 1], [0], [1], [0], [1], [1]]
  num_inference_steps: 30
  skip_final_inference_steps: 3
  cfg_star_rescale: true
second_pass:
  guidance_scale: [1]
  stg_scale: [1]
  rescaling_scale: [1]
  guidance_timesteps: [1.0]
  skip_block_list: [1]
  num_inference_steps: 30
  skip_initial_inference_steps: 17
""",
    """prompt: waves
height: 512
width: 704
num_frames: 97
frame_rate: 25.0
seed: 7
steps: 20
guidance_scale: 3
stg_mode: attention_values
tone_map: 0.2
decode_timestep: 0.05
""",
)


def settings(folder: Path) -> Attempt:
    """Settings files, ours and the official ones, and the request that they make."""
    whole, path = material.bundle(folder), folder / "settings.yaml"

    def attempt(rng: random.Random) -> None:
        text = rng.choice(SETTINGS)
        changed = mutate.text(rng, text).encode("utf-8", "surrogatepass")
        path.write_bytes(mutate.raw_bytes(rng, changed) if rng.random() < 0.2 else changed)
        values = yaml_file.read(path).fields()
        request = Request(**{"prompt": PROMPT, **values})
        if whole.facts.vae is not None:
            complete(request, whole.presets, whole.facts.vae)

    return attempt


def tokenizers(folder: Path) -> Attempt:
    """tokenizer.json, read and used on a prompt."""
    material.bundle(folder)
    path = folder / "tokenizer" / "tokenizer.json"
    text = path.read_bytes()
    data = json.loads(text)
    pieces = data["model"]["vocab"]

    def attempt(rng: random.Random) -> None:
        if rng.random() < 0.5:  # else nearly all of the damage is in pieces
            data["model"]["vocab"] = "@pieces@"
            rest = json.dumps(data).encode()
            changed = mutate.json_bytes(rng, rest).replace(b'"@pieces@"', json.dumps(pieces).encode())
        else:
            changed = mutate.json_bytes(rng, text)
        path.write_bytes(changed)
        Tokenizer(path).encode(PROMPT, 64)

    return attempt


def videos(folder: Path) -> Attempt:
    """What a video says of how it was made, and the request that makes it again."""
    whole = material.bundle(folder)
    for name in ("photo.png", "clip.mp4"):
        (folder / name).write_bytes(name.encode())
    conditions = (Condition(folder / "clip.mp4", 8, 0.5),)
    request = Request(PROMPT, image=folder / "photo.png", conditions=conditions, seed=7, steps=4)
    graphs = {name: {"precision": "fp32", "sha256": "0" * 64} for name in material.COMPONENTS}
    ran = {"backend": "onnxruntime", "threads": None, "cores": 2, "place": "CPU", "many_calls": False}
    values = completed_by(whole, request)
    text = record.document(request, values, provenance.inputs(request), graphs, ran).encode()
    (folder / "video").mkdir()
    encoding = json.dumps({"codec": None, "crf": None, "bit_depth": 8})

    def attempt(rng: random.Random) -> None:
        changed = mutate.json_bytes(rng, text).decode("utf-8", "replace")
        metadata = json.dumps({record.KEY: changed, "encoding": encoding})
        (folder / "video" / "metadata.json").write_text(metadata, encoding="utf-8")
        made = record.read(folder / "video")
        again = json_form.given(made.request)
        made.pinned(completed_by(whole, Request(**{"prompt": PROMPT, **again})))
        sources.fields(made, [folder])

    return attempt


CONDITIONS = ("photo.png", "photo.png@96:0.8", "clip.mp4@48", "a@b:c.png@0", "clip.mp4@-8:1.0")
PROFILES = ("512x768x97", "256..704x256..1216x9..161", "256..704x256..768..1216x9..161")
LISTS = ("1,0.9875,0.725", "3", "1,1,6")
BLOCKS = ("11,25,35;22", "19", ";0,1;2", "")
MEMORY = ("4GiB", "512 MiB", "2.5GB", "1000000")
SECOND = (
    "steps=10",
    "guidance-scale=1,3",
    "stochastic=yes",
    "skip-block-list=1;2",
    "stg-mode=attention_skip",
)


def option_texts(folder: Path) -> Attempt:
    """Texts of --condition, --profile, --vae-memory, --second-pass, --precision, and lists of numbers."""
    whole = material.bundle(folder)
    vae, contract = whole.facts.vae, whole.contract("vae_decoder")

    def profile(text: str) -> None:
        profiles.check(profiles.parse(text, whole.facts), contract, 1 << 12)

    def second(text: str) -> None:
        request = Request(PROMPT, second_pass=options.second_pass([text]))
        if vae is not None:
            complete(request, whole.presets, vae)

    kinds = (
        (CONDITIONS, media.parse),
        (PROFILES, profile),
        (LISTS, lambda text: fields.SETTINGS["guidance_scale"].kind.from_text("guidance_scale", text)),
        (BLOCKS, lambda text: fields.SETTINGS["skip_block_list"].kind.from_text("skip_block_list", text)),
        (MEMORY, tiling.parse_bytes),
        (SECOND, second),
        (
            ("fp16", "transformer=fp16,vae_decoder=fp32"),
            lambda text: options.precisions(text, material.COMPONENTS),
        ),
    )

    def attempt(rng: random.Random) -> None:
        texts, read = rng.choice(kinds)
        read(mutate.text(rng, rng.choice(texts)))

    return attempt


def graphs(folder: Path) -> Attempt:
    """The bytes of graphs, before a backend sees them."""
    from onnx import TensorProto, helper

    whole = material.bundle(folder)
    values = {"f32": TensorProto.FLOAT, "i64": TensorProto.INT64, "bool": TensorProto.BOOL}
    contract = whole.contract("text_encoder")
    inputs, outputs = (
        [helper.make_tensor_value_info(t.name, values[t.dtype], t.shape) for t in side]
        for side in (contract.inputs, contract.outputs)
    )
    weight = helper.make_tensor("weight", TensorProto.FLOAT, (4,), [1, 2, 3, 4])
    nodes = [helper.make_node("Cast", ["input_ids"], ["a"], to=TensorProto.FLOAT)]
    nodes += [helper.make_node("Mul", ["a", "weight"], ["hidden_states"], name=f"n{i}") for i in range(20)]
    graph = helper.make_graph(nodes, "g", inputs, outputs, [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)]).SerializeToString()
    path = whole.path(whole.graph("text_encoder").file)

    def attempt(rng: random.Random) -> None:
        path.write_bytes(mutate.raw_bytes(rng, model))
        check_graph(whole, "text_encoder", "fp32")

    return attempt


TARGETS: dict[str, Target] = {
    "headers": headers,
    "configs": configs,
    "manifests": manifests,
    "records": records,
    "reports": reports,
    "settings": settings,
    "tokenizers": tokenizers,
    "options": option_texts,
    "graphs": graphs,
    "media": media_files,
    "videos": videos,
}
