"""What all tests share: tiny random checkpoints, their bundles, the same weights in the reference's modules.

Everything is made once per session; with pytest-xdist, once for all workers.
"""

import dataclasses
import fcntl
import itertools
import json
import os
import shutil
import signal
import sys
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from ltxrt.engines.storage import times as storage_times
from ltxrt.engines.storage.files import sha256
from ltxrt.export.cli import main as ltx_export

# torch, diffusers and transformers take ten seconds to import: only what uses them does.

NUMBERS = itertools.count()


@pytest.fixture(scope="session", autouse=True)
def interruptible():
    """A shell starts what runs in its background with SIGINT ignored, which every process inherits."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def times(tmp_path_factory, monkeypatch):
    """What stages take is noted for each test alone, not with the user's."""
    file = tmp_path_factory.getbasetemp() / f"times-{next(NUMBERS)}.json"
    monkeypatch.setattr(storage_times, "place", lambda: file)


@pytest.fixture(scope="session")
def reference():
    from ltxrt.parity.ltxv import diffusers

    names = ("transformer_config", "vae_config", "transformer", "vae", "t5_config", "to_diffusers_vae")
    return SimpleNamespace(**{name: getattr(diffusers, name) for name in names})


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory):
    """One folder for all workers of the session."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@contextmanager
def made_once(target):
    """Yield a folder to fill, or None where it was filled before; it appears as `target` when whole."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.exists():
            yield None
            return
        work = target.with_suffix(".work")
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        yield work
        work.rename(target)


@pytest.fixture(scope="session")
def made(shared_folder):
    """(name, fill) → the folder of that name, which `fill(work)` filled, once for all workers."""

    def make(name, fill):
        target = shared_folder / name
        with made_once(target) as work:
            if work:
                fill(work)
        return target

    return make


@pytest.fixture(scope="session")
def kept_traces(shared_folder):
    """Exports in this process take graphs that were traced before, here or in an earlier run."""
    import traces

    with pytest.MonkeyPatch.context() as patch:
        traces.keep(patch, traces.folder(shared_folder))
        yield


@pytest.fixture(scope="session", autouse=True)
def traces_where_torch_is(request):
    if "torch" in sys.modules:  # else nothing that was collected exports by itself
        request.getfixturevalue("kept_traces")


@pytest.fixture(scope="session")
def tiny_checkpoint(made):
    """version → folder with `model.safetensors`, the official single file, and `t5/`."""

    def make(version):
        def fill(work):
            from ltxrt.parity.synthetic import checkpoint as synthetic
            from ltxrt.parity.synthetic import models as synthetic_models

            models = synthetic_models.tiny(version)
            file = work / "model.safetensors"
            synthetic.write_official(file, models.transformer, models.vae, models.scheduler)
            synthetic.write_text_encoder(work / "t5", models.text_encoder)

        return made(f"checkpoint-{version.replace('.', '_')}", fill)

    return make


@pytest.fixture(scope="session")
def run_command(kept_traces):
    """(click command, arguments) → its result, exit status 0: what users run, but torch is imported once."""

    def run(main, *arguments):
        done = CliRunner().invoke(main, list(map(str, arguments)))
        assert done.exit_code == 0, done.output
        return done

    return run


@pytest.fixture(scope="session")
def tiny_bundle(made, run_command, tiny_checkpoint):
    """version → its fp32 bundle with every component, made by the command that users run."""

    def make(version):
        def fill(work):
            checkpoint = tiny_checkpoint(version)
            options = ("--text-encoder", checkpoint / "t5", "--model-version", version, "--output", work)
            run_command(ltx_export, "onnx", checkpoint / "model.safetensors", *options)

        return made(f"bundle-{version.replace('.', '_')}", fill)

    return make


UPSAMPLERS = ("latent_upsampler", "temporal_upsampler")


@pytest.fixture(scope="session")
def tiny_upsampler(made):
    """component → an official file of a small latent upsampler for the tiny checkpoints."""

    def make(component):
        def fill(work):
            from ltxrt.export.ltxv.config import UpsamplerConfig
            from ltxrt.parity.synthetic.checkpoint import write_upsampler

            config = UpsamplerConfig(16, 64, 2, temporal=component == "temporal_upsampler")
            write_upsampler(work / "upsampler.safetensors", config)

        return made(f"checkpoint-{component}", fill) / "upsampler.safetensors"

    return make


@pytest.fixture(scope="session")
def two_pass_bundle(made, run_command, tiny_bundle, tiny_checkpoint, tiny_upsampler):
    """The 0.9.5 bundle with both latent upsamplers."""

    def fill(work):
        shutil.copytree(tiny_bundle("0.9.5"), work, dirs_exist_ok=True)
        options = ["--model-version", "0.9.5", "--output", work]
        for component in UPSAMPLERS:
            options += ["--upsampler", tiny_upsampler(component), "--component", component]
        run_command(ltx_export, "onnx", tiny_checkpoint("0.9.5") / "model.safetensors", *options)

    return made("bundle-two-passes", fill)


@pytest.fixture(scope="session")
def parity_case(made, run_command):
    """`model.safetensors`, `t5/` and their `bundle/`: every component in every precision, fp8 calibrated.

    Four layers, so that two are quantised.
    """

    def fill(work):
        from ltxrt.parity.calibrate import main as calibrate
        from ltxrt.parity.synthetic import checkpoint as synthetic
        from ltxrt.parity.synthetic import models as synthetic_models

        models = synthetic_models.tiny("0.9.5")
        dit = dataclasses.replace(models.transformer, layers=4)
        synthetic.write_official(work / "model.safetensors", dit, models.vae, models.scheduler)
        synthetic.write_text_encoder(work / "t5", models.text_encoder)
        (work / "prompts.txt").write_text("a lighthouse in fog\nwaves on a shore\n")
        onnx = ("onnx", work / "model.safetensors", "--model-version", "0.9.5", "--output", work / "bundle")
        for precision in ("fp32", "fp16", "bf16"):
            run_command(ltx_export, *onnx, "--text-encoder", work / "t5", "--precision", precision)
        runs = ("--prompts", work / "prompts.txt", "--height", 64, "--width", 96, "--num-frames", 17)
        files = ("--bundle", work / "bundle", "--output", work / "scales.json")
        run_command(calibrate, *files, *runs, "--steps", 4)
        for precision in ("fp8", "fp8-fp16"):
            fp8 = ("--component", "transformer", "--scales", work / "scales.json", "--precision", precision)
            run_command(ltx_export, *onnx, *fp8)

    return made("parity", fill)


@pytest.fixture(scope="session")
def diffusers_models(tiny_checkpoint):
    """version → diffusers' and transformers' own modules with the checkpoint's weights."""

    import torch
    from diffusers.loaders.single_file_utils import convert_ltx_transformer_checkpoint_to_diffusers
    from safetensors.torch import load_file
    from transformers import T5EncoderModel

    from ltxrt.export.ltxv import versions
    from ltxrt.parity.ltxv.diffusers import to_diffusers_vae, transformer, vae
    from ltxrt.parity.synthetic import models as synthetic_models

    def make(version):
        folder, models = tiny_checkpoint(version), synthetic_models.tiny(version)
        tensors = load_file(folder / "model.safetensors")
        graph = versions.version(version).vae_graph
        dit, autoencoder = transformer(models.transformer), vae(graph, models.vae)
        names = {n: t for n, t in tensors.items() if n.startswith("model.diffusion_model.")}
        dit.load_state_dict(convert_ltx_transformer_checkpoint_to_diffusers(names), strict=True)
        names = {n: t for n, t in tensors.items() if n.startswith("vae.")}
        autoencoder.load_state_dict(to_diffusers_vae(names, graph), strict=True)
        text_encoder = T5EncoderModel.from_pretrained(folder / "t5", dtype=torch.float32).eval()
        return SimpleNamespace(transformer=dit, vae=autoencoder, text_encoder=text_encoder)

    return make


@pytest.fixture(scope="session")
def record_again():
    """Make the manifest that of an export that wrote these files: damage is seen by their hashes."""

    def record(folder, component, precision):
        manifest = json.loads((folder / "bundle.json").read_text())
        graph = manifest["components"][component][precision]
        for file in (graph["file"], *graph["data"]):
            path = folder / file["path"]
            file.update(bytes=path.stat().st_size, sha256=sha256(path))
        (folder / "bundle.json").write_text(json.dumps(manifest))

    return record


def scheduler(version):
    """The scheduler that diffusers' folders of these releases carry."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    from ltxrt.export.ltxv import versions

    if versions.version(version).scheduler.shift is None:
        return FlowMatchEulerDiscreteScheduler(shift=1.0)
    return FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True,
        base_shift=0.95,
        max_shift=2.05,
        base_image_seq_len=1024,
        max_image_seq_len=4096,
        shift_terminal=0.1,
    )


@pytest.fixture(scope="session")
def diffusers_folder(made, tiny_checkpoint, diffusers_models):
    """version → the same weights as a diffusers folder, its transformer in several shards."""

    def make(version):
        def fill(work):
            from diffusers import LTXPipeline
            from transformers import T5TokenizerFast

            models = diffusers_models(version)
            tokenizer_file = tiny_checkpoint(version) / "t5" / "tokenizer" / "tokenizer.json"
            tokenizer = T5TokenizerFast(tokenizer_file=str(tokenizer_file), extra_ids=0)
            parts = (models.vae, models.text_encoder, tokenizer, models.transformer)
            LTXPipeline(scheduler(version), *parts).save_pretrained(work)
            shutil.rmtree(work / "transformer")
            models.transformer.save_pretrained(work / "transformer", max_shard_size="100KB")

        return made(f"diffusers-{version.replace('.', '_')}", fill)

    return make
