"""Opens a checkpoint of any layout as one thing: per component a config and stored tensors, official names.

Layouts: the official single file (config in its header), a converted one without config, a bare VAE or
transformer file, a diffusers folder, one component's folder, a text-encoder folder. No tensor is read here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from ltxrt.engines.errors import CheckpointError, setting
from ltxrt.engines.families.ltxv.facts import SchedulerFacts
from ltxrt.export import components
from ltxrt.export.checkpoint.fields import load_json, parse_json
from ltxrt.export.checkpoint.folder import folder_tensors
from ltxrt.export.checkpoint.part import Part, first
from ltxrt.export.checkpoint.safetensors import SafetensorsFile, StoredTensor
from ltxrt.export.hub.reference import cached_as
from ltxrt.export.ltxv import diffusers, from_shapes, names, official, versions
from ltxrt.export.ltxv.config import TextEncoderConfig, TransformerConfig, UpsamplerConfig, VaeConfig
from ltxrt.export.ltxv.facts import STATISTICS
from ltxrt.export.ltxv.upsampler import open_upsampler
from ltxrt.export.ltxv.vae_graphs import vae_graph

Tensors = dict[str, StoredTensor]
TRANSFORMER_PREFIX, VAE_PREFIX = "model.diffusion_model.", "vae."
_BARE_TRANSFORMER = re.compile(
    r"(patchify_proj|adaln_single|caption_projection|transformer_blocks|scale_shift_table|proj_out)(\.|$)"
)
_BARE_VAE = re.compile(r"(encoder|decoder|per_channel_statistics)\.")
_DIFFUSERS_NAME = re.compile(r"proj_in\.|time_embed\.|(encoder|decoder)\.mid_block\.")
_TEXT_NAME = re.compile(r"shared\.weight$|encoder\.block\.")
_TOKENIZER_FILES = ("tokenizer.json", "spiece.model")


@dataclass(frozen=True)
class Checkpoint:
    """What was found; a part is None where the checkpoint does not have it."""

    transformer: Part[TransformerConfig] | None
    vae: Part[VaeConfig] | None
    text_encoder: Part[TextEncoderConfig] | None
    latent_upsampler: Part[UpsamplerConfig] | None
    temporal_upsampler: Part[UpsamplerConfig] | None
    tokenizer: Path | None  # folder with tokenizer.json or spiece.model
    scheduler: SchedulerFacts | None
    version: versions.Version
    source: str

    @property
    def family(self) -> str:
        """As `ltxrt.export.families` names it."""
        return "ltx-video"

    @property
    def parts(self) -> dict[str, Part[Any]]:
        """The parts there are, by name."""
        return {
            field.name: part for field in fields(self) if isinstance(part := getattr(self, field.name), Part)
        }


@dataclass(frozen=True)
class _Found:
    """One path's contents, before parts from other paths and the version are added."""

    transformer: Part[TransformerConfig] | None = None
    vae: Part[VaeConfig] | None = None
    text_encoder: Part[TextEncoderConfig] | None = None
    tokenizer: Path | None = None
    scheduler: SchedulerFacts | None = None
    says_rope: bool = False  # the config says whether rotary positions are causal


def open_checkpoint(
    path: str | Path,
    vae: str | Path | None = None,
    text_encoder: str | Path | None = None,
    version: str | None = None,
    upsamplers: Sequence[str | Path] = (),
    check: bool = True,
) -> Checkpoint:
    """Open `path`, the VAE or text encoder taken from elsewhere if given, and check every part's tensors.

    `upsamplers` are latent upsamplers of this checkpoint's VAE, at most a spatial and a temporal one.

    `version` overrides which release it is; one that contradicts the architecture is an error. `check` False
    does not compare the tensors with the configs, for which torch builds the networks without weights.
    """
    found = _find(Path(path))
    if vae is not None:
        found = replace(found, vae=_only_vae(Path(vae)))
    if text_encoder is not None:
        part, tokenizer = open_text_encoder(Path(text_encoder))
        found = replace(found, text_encoder=part, tokenizer=tokenizer)
    if found.transformer is None and found.vae is None:
        raise CheckpointError(f"{path}: holds neither a transformer nor a VAE of LTX-Video")
    row = versions.recognise(
        found.transformer.config if found.transformer else None,
        found.vae.config if found.vae else None,
        found.scheduler,
        _telling_name(Path(path)),
        version,
    )
    checkpoint = Checkpoint(
        transformer=_with_rope(found, row),
        vae=found.vae,
        text_encoder=found.text_encoder,
        latent_upsampler=_upsampler(upsamplers, found.vae, temporal=False),
        temporal_upsampler=_upsampler(upsamplers, found.vae, temporal=True),
        tokenizer=found.tokenizer,
        scheduler=_with_steps(found.scheduler or row.scheduler, row),
        version=row,
        source=_describe_sources(path, vae, text_encoder),
    )
    if check:
        components.check(checkpoint)
    return checkpoint


def _upsampler(
    paths: Sequence[str | Path], vae: Part[VaeConfig] | None, temporal: bool
) -> Part[UpsamplerConfig] | None:
    """The one upsampler of that kind among `paths`, with the latent statistics of `vae`."""
    opened = [(path, *open_upsampler(Path(path))) for path in paths]
    fitting = [one for one in opened if one[1].temporal == temporal]
    if not fitting:
        return None
    if len(fitting) > 1:
        raise CheckpointError(
            f"{fitting[0][0]} and {fitting[1][0]} are upsamplers of one kind; give one of them"
        )
    path, config, tensors = fitting[0]
    if vae is None:
        raise CheckpointError(
            f"{path}: an upsampler needs the VAE it works between; give it as {setting('vae')}"
        )
    if config.latent_channels != vae.config.latent_channels:
        raise CheckpointError(
            f"{path}: upsamples {config.latent_channels} latent channels but the VAE has "
            f"{vae.config.latent_channels}; give the upsampler of this release"
        )
    return Part(config, {**tensors, **{n: vae.weights[n] for n in STATISTICS if n in vae.weights}})


def _with_rope(found: _Found, row: versions.Version) -> Part[TransformerConfig] | None:
    if found.transformer is None or found.says_rope:
        return found.transformer
    return replace(found.transformer, config=replace(found.transformer.config, causal_rope=row.causal_rope))


def _with_steps(scheduler: SchedulerFacts, row: versions.Version) -> SchedulerFacts:
    """diffusers' scheduler config has no place for a distilled checkpoint's steps."""
    return replace(scheduler, allowed_steps=scheduler.allowed_steps or row.scheduler.allowed_steps)


def _telling_name(path: Path) -> str:
    """The name that may tell the release; a hub cache's `snapshots/<hash>` says it two folders up."""
    path = path.resolve() if path.name in ("", ".", "..") else path
    return path.parent.parent.name if path.parent.name == "snapshots" else path.name


def _describe_sources(path: str | Path, vae: str | Path | None, text_encoder: str | Path | None) -> str:
    others = {"vae": vae, "text encoder": text_encoder}
    return ", ".join(
        [_known_as(path), *(f"{k} from {_known_as(v)}" for k, v in others.items() if v is not None)]
    )


def _known_as(path: str | Path) -> str:
    """A file's name, with repository and commit where it comes from the hub."""
    return str(cached_as(Path(path)) or Path(path).name)


def _find(path: Path) -> _Found:
    if not path.is_dir():
        return _single_file(path)
    if any((path / name).is_dir() for name in ("transformer", "vae")):
        return _diffusers_folder(path)
    if (path / "config.json").is_file():
        return _component_folder(path)
    files = sorted(p.name for p in path.glob("*.safetensors"))
    hint = (
        f"give one of its files, such as {path / files[0]}"
        if files
        else "it holds no transformer/ and no vae/"
    )
    raise CheckpointError(f"{path}: is neither a diffusers folder nor one component's; {hint}")


def is_text_encoder(name: str) -> bool:
    """Whether a tensor of this name is a text encoder's."""
    return _TEXT_NAME.match(name) is not None


def _only_vae(path: Path) -> Part[VaeConfig]:
    part = _find(path).vae
    if part is None:
        raise CheckpointError(f"{path}: was given as the VAE but holds none")
    return part


def _single_file(path: Path) -> _Found:
    file = SafetensorsFile(path)
    if any(map(_DIFFUSERS_NAME.match, file.tensors)):
        if not (path.parent / "config.json").is_file():
            raise CheckpointError(f"{path}: has diffusers' tensor names; its config.json must lie beside it")
        return _component_folder(path.parent)
    if any(map(is_text_encoder, file.tensors)):
        raise CheckpointError(
            f"{path}: is a T5 file; give its folder, with config.json and tokenizer, as text encoder"
        )
    transformer, vae = _split(path, file.tensors)
    config = (
        parse_json(file.metadata["config"], f"{path}: header config") if "config" in file.metadata else {}
    )
    if config.get("_class_name") == "CausalVideoAutoencoder":
        config = {"vae": config}
    scheduler = config.get("scheduler")
    return _Found(
        transformer=_official_transformer(transformer, _section(config, "transformer", path))
        if transformer
        else None,
        vae=_official_vae(vae, _section(config, "vae", path)) if vae else None,
        scheduler=official.scheduler_facts(
            _section(config, "scheduler", path) or {}, config.get("allowed_inference_steps")
        )
        if scheduler is not None
        else None,
        says_rope="transformer" in config,
    )


def _section(config: Mapping[str, Any], key: str, path: Path) -> Mapping[str, Any] | None:
    section = config.get(key)
    if section is not None and not isinstance(section, dict):
        raise CheckpointError(f"{path}: header config: {key} must be an object, is {section!r:.60}")
    return section


def _split(path: Path, tensors: Tensors) -> tuple[Tensors, Tensors]:
    """A single file's tensors by component, prefixes removed."""
    transformer: Tensors = {}
    vae: Tensors = {}
    unknown: list[str] = []
    for name, tensor in tensors.items():
        if name.startswith(TRANSFORMER_PREFIX) or _BARE_TRANSFORMER.match(name):
            transformer[name.removeprefix(TRANSFORMER_PREFIX)] = tensor
        elif name.startswith(VAE_PREFIX) or _BARE_VAE.match(name):
            vae[name.removeprefix(VAE_PREFIX)] = tensor
        else:
            unknown.append(name)
    if unknown:
        raise CheckpointError(
            f"{path}: {len(unknown)} tensors belong to neither a transformer nor a VAE of LTX-Video "
            f"({first(unknown)})"
        )
    return transformer, vae


def _shapes(tensors: Tensors) -> dict[str, tuple[int, ...]]:
    return {name: t.shape for name, t in tensors.items()}


def _official_transformer(tensors: Tensors, config: Mapping[str, Any] | None) -> Part[TransformerConfig]:
    if config is None:
        return Part(from_shapes.transformer_config(_shapes(tensors)), tensors)
    return Part(official.transformer_config(config), tensors)


def _official_vae(tensors: Tensors, config: Mapping[str, Any] | None) -> Part[VaeConfig]:
    weights = {n: t for n, t in tensors.items() if names.is_vae_weight(n)}
    if config is None:
        return Part(from_shapes.vae_config(_shapes(weights)), weights)
    return Part(official.vae_config(config), weights)


def _diffusers_folder(folder: Path) -> _Found:
    transformer, vae, text = (folder / name for name in ("transformer", "vae", "text_encoder"))
    schedule = folder / "scheduler" / "scheduler_config.json"
    encoder, tokenizer = open_text_encoder(folder) if text.is_dir() else (None, None)
    return _Found(
        transformer=_diffusers_transformer(transformer) if transformer.is_dir() else None,
        vae=_diffusers_vae(vae) if vae.is_dir() else None,
        text_encoder=encoder,
        tokenizer=tokenizer,
        scheduler=diffusers.scheduler_facts(load_json(schedule)) if schedule.is_file() else None,
    )


def _component_folder(folder: Path) -> _Found:
    kind = load_json(folder / "config.json").get("_class_name")
    if kind == "LTXVideoTransformer3DModel":
        return _Found(transformer=_diffusers_transformer(folder))
    if kind == "AutoencoderKLLTXVideo":
        return _Found(vae=_diffusers_vae(folder))
    raise CheckpointError(
        f"{folder}: config.json is of {kind or 'another model'}; needed is LTXVideoTransformer3DModel or "
        "AutoencoderKLLTXVideo"
    )


def _diffusers_transformer(folder: Path) -> Part[TransformerConfig]:
    config = diffusers.transformer_config(load_json(folder / "config.json"))
    return Part(config, {names.transformer_name(n): t for n, t in folder_tensors(folder).items()})


def _diffusers_vae(folder: Path) -> Part[VaeConfig]:
    config = diffusers.vae_config(load_json(folder / "config.json"))
    graph = vae_graph(config) or ""
    return Part(config, {names.vae_name(n, graph): t for n, t in folder_tensors(folder).items()})


def open_text_encoder(folder: Path) -> tuple[Part[TextEncoderConfig], Path]:
    """A folder holding text_encoder/ and tokenizer/, or T5's own with the tokenizer in it or beside it."""
    model = folder / "text_encoder" if (folder / "text_encoder").is_dir() else folder
    if not (model / "config.json").is_file():
        what = "no such folder" if not folder.exists() else "no T5 text encoder"
        inside = "" if model == folder else ": its text_encoder/ has no config.json"
        raise CheckpointError(
            f"text encoder {folder}: {what}{inside}; give the folder that holds text_encoder/ and "
            "tokenizer/, or T5's own files (config.json, weights, tokenizer.json or spiece.model)"
        )
    config = diffusers.text_encoder_config(load_json(model / "config.json"))
    weights = {
        o: t for n, t in folder_tensors(model).items() if (o := names.text_encoder_name(n)) is not None
    }
    candidates = (model / "tokenizer", model, model.parent / "tokenizer")
    for candidate in candidates:
        if any((candidate / name).is_file() for name in _TOKENIZER_FILES):
            return Part(config, weights), candidate
    raise CheckpointError(
        f"{model}: no {' or '.join(_TOKENIZER_FILES)} in it, in its tokenizer/ or in ../tokenizer/"
    )
