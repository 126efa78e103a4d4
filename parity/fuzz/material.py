"""Small valid files for the targets to damage: a checkpoint, a bundle, an engine record and a report.

Made in a moment and without torch: graphs and weights are files of a few bytes, because no reader of these
looks inside before an engine is loaded.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from ltxrt.engines import families
from ltxrt.engines.bundle import SCHEMA, Bundle, Graph, Manifest, Memory, record, write_bundle
from ltxrt.engines.families.ltxv.facts import Facts, VaeFacts
from ltxrt.engines.tensorrt import cache
from ltxrt.engines.tensorrt.build import BuildOptions
from ltxrt.engines.tensorrt.profiles import parse, to_json
from ltxrt.export.ltxv import versions
from ltxrt.export.ltxv.facts import noise_maps, text_encoder_facts, transformer_facts
from ltxrt.parity.check import results
from ltxrt.parity.check.results import Call, Check, Culprit, EndToEnd, Metrics, Report, Tolerance
from ltxrt.parity.synthetic import checkpoint as synthetic
from ltxrt.parity.synthetic import models as synthetic_models
from ltxrt.parity.synthetic.tokenizer import write_tokenizer

VERSION = "0.9.7-dev"  # two passes and lists of guidance
COMPONENTS = ("text_encoder", "transformer", "vae_encoder", "vae_decoder", "latent_upsampler")
ENGINE = b"an engine"


def checkpoint(folder: Path) -> bytes:
    """The header of a small official file, config and all, without its 8 bytes of length."""
    models = synthetic_models.tiny(VERSION)
    path = folder / "model.safetensors"
    synthetic.write_official(path, models.transformer, models.vae, models.scheduler, fill="sparse")
    with path.open("rb") as file:
        return file.read(int.from_bytes(file.read(8), "little"))


def facts() -> Facts:
    models = synthetic_models.tiny(VERSION)
    vae = models.vae
    return Facts(
        transformer=transformer_facts(models.transformer),
        vae=VaeFacts(
            latent_channels=vae.latent_channels,
            spatial_compression=vae.spatial_compression,
            temporal_compression=vae.temporal_compression,
            latents_mean=(0.0,) * vae.latent_channels,
            latents_std=(1.0,) * vae.latent_channels,
            timestep_conditioning=vae.timestep_conditioning,
            noise_maps=noise_maps(vae),
        ),
        text_encoder=text_encoder_facts(models.text_encoder),
        scheduler=models.scheduler,
    )


def bundle(folder: Path) -> Bundle:
    """A bundle in `folder`, valid except for its graphs."""
    known = facts()
    write_tokenizer(folder / "tokenizer", 384)
    (folder / "onnx").mkdir()
    graphs = {}
    for name in COMPONENTS:
        path = folder / "onnx" / f"{name}.fp32.onnx"
        path.write_bytes(b"no graph")
        contract = families.derive(name, known).to_json()
        memory = Memory(1 << 20, 1 << 16, 1 << 12) if name.startswith("vae") else None
        graphs[name] = {"fp32": Graph(record(folder, path), (), None, contract, memory)}
    row = versions.version(VERSION)
    manifest = Manifest(
        schema=SCHEMA,
        family=families.of(known).name,
        version=VERSION,
        licence="none",
        produced_by={"ltxrt": "0"},
        source={"checkpoint": "made up"},
        facts=known,
        presets=versions.presets(row, 2),
        tokenizer=record(folder, folder / "tokenizer" / "tokenizer.json"),
        components=graphs,
    )
    return write_bundle(folder, manifest)


def engine_record(whole: Bundle) -> cache.Record:
    """The record of an engine of the bundle's transformer."""
    sizes = ("512x768x97", "64..128x96..192x9..33")
    graph = whole.graph("transformer")
    written = cache.Record(
        schema=cache.SCHEMA,
        component="transformer",
        precision="fp32",
        backend="tensorrt_rtx",
        backend_version="1.0",
        target="sm89",
        graph=graph.file.sha256,
        data=(),
        profiles=tuple(to_json(parse(text, whole.facts)) for text in sizes),
        options=dataclasses.asdict(BuildOptions()),
        attentions=4,
        layers={"matrix_multiply": {"float": 8}},
    )
    return dataclasses.replace(written, bytes=len(ENGINE), sha256=hashlib.sha256(ENGINE).hexdigest())


def report(folder: Path) -> bytes:
    """A parity report with a row of each kind."""
    metrics = Metrics(1e-6, 1.0, 120.0, 118.0, 1e-5)
    call = Call("t2v", "64x96x17", 2, 1, 0.5, metrics, (0.1,) * 8)
    tolerance = Tolerance(1e-4, 0.999, 60.0, "rounding")
    checks = tuple(
        Check(name, "fp32", "onnxruntime", "torch", results.PASSED, tolerance, (call, call), (), 0.5)
        for name in COMPONENTS
    )
    whole = Report(
        schema=results.SCHEMA,
        status=results.FAILED,
        bundle="made up",
        version=VERSION,
        created="today",
        environment={"torch": "0"},
        graphs={f"{name}.fp32": "0" * 64 for name in COMPONENTS},
        checks=(*checks, Check("transformer", "fp16", "x", "torch", results.SKIPPED, None, (), ("why",))),
        end_to_end=(EndToEnd("fp32", "x", "torch", results.PASSED, (0.9, 1.0), None, 1.0, "a.png", "a.mp4"),),
        culprits=(Culprit("transformer", "fp16", "transformer_blocks.1", "MatMul x", 0.1, 0.01),),
    )
    results.write(whole, folder / "report.json")
    return (folder / "report.json").read_bytes()


def json_of(value: Any) -> bytes:
    return json.dumps(dataclasses.asdict(value)).encode()
