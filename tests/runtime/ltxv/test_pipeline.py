import dataclasses
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ltxrt.engines.backend import load_engine
from ltxrt.engines.bundle import read_bundle
from ltxrt.engines.errors import BundleError, InputError, NumericsError
from ltxrt.runtime import engine_pool
from ltxrt.runtime.ltxv.noise import noise_sources
from ltxrt.runtime.ltxv.pipeline import Pipeline
from ltxrt.runtime.noise.cpu import TorchCpuGenerator
from ltxrt.runtime.noise.cuda import TorchCudaGenerator
from ltxrt.runtime.request.request import Request

PROMPT = "a lighthouse in fog"
SMALL = {"height": 64, "width": 96, "num_frames": 9, "steps": 3}


@pytest.fixture
def pipeline(tiny_bundle):
    return Pipeline(tiny_bundle("0.9.5"))


@pytest.mark.parametrize("version", ["0.9.0", "0.9.1", "0.9.5"])
def test_every_autoencoder_makes_a_video(version, tiny_bundle):
    video = Pipeline(tiny_bundle(version)).generate(Request(PROMPT, **SMALL))
    assert video.frames.shape == (9, 64, 96, 3)
    assert video.frames.dtype == np.uint8
    assert video.frames.std() > 5


def test_same_seed_same_frames_other_seed_others(pipeline):
    one, again, other = (pipeline.generate(Request(PROMPT, seed=s, **SMALL)).frames for s in (3, 3, 4))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()


def test_threads_that_share_a_pipeline_make_what_one_makes(tiny_bundle):
    seeds = (3, 4, 3, 4, 3, 4, 3, 4)
    with Pipeline(tiny_bundle("0.9.5"), threads=1) as pipeline, ThreadPoolExecutor(4) as pool:
        requests = [Request(PROMPT, seed=seed, **SMALL) for seed in seeds]
        alone = [pipeline.generate(request).frames for request in requests[:2]]
        for index, video in enumerate(pool.map(pipeline.generate, requests)):
            np.testing.assert_array_equal(video.frames, alone[index % 2])


def test_videos_leave_nothing_open(pipeline, tmp_path):
    Image.new("RGB", (96, 64), "teal").save(tmp_path / "i.png")

    def descriptors():
        pipeline.generate(Request(PROMPT, image=tmp_path / "i.png", **SMALL))
        return len(list(Path("/proc/self/fd").iterdir()))

    first = descriptors()  # what libraries open once and keep is there from now on
    assert [descriptors() for _ in range(5)] == [first] * 5


def test_image_becomes_the_first_frame_s_latents(pipeline):
    image = np.linspace(-1, 1, 3 * 64 * 96, dtype=np.float32).reshape(3, 64, 96)
    noise = np.random.default_rng(0).standard_normal((1, 16, 2, 2, 3), dtype=np.float32)
    plan = pipeline.plan(Request(PROMPT, image=image, noise=noise, **SMALL))
    events = []
    stream = pipeline.start(plan, 0, None, noise_sources(plan.settings), events.append)
    with load_engine(pipeline.bundle, "vae_encoder") as encoder:
        encoded = encoder(pixels=image[None, :, None])["latents"]
    tokens = stream.tokens[0].T.reshape(16, 2, 2, 3)
    np.testing.assert_array_equal(tokens[:, 0], encoded[0, :, 0])
    np.testing.assert_array_equal(tokens[:, 1], noise[0, :, 1])
    np.testing.assert_array_equal(stream.strengths.tokens[0], [1] * 6 + [0] * 6)
    assert (stream.own.start, [e.stage for e in events]) == (0, ["image encoder"])


@pytest.mark.parametrize("image", [np.zeros((3, 64, 64), np.float32), np.zeros((3, 64, 96), np.uint8)])
def test_pixels_of_another_shape_or_dtype_are_refused_before_any_engine_loads(pipeline, monkeypatch, image):
    monkeypatch.setattr(engine_pool, "load_engine", None)
    with pytest.raises(InputError, match=r"image .*must be .*float32 \(3, "):
        pipeline.generate(Request(PROMPT, image=image, **SMALL))


def test_image_changes_the_video_and_strength_zero_ignores_it(pipeline):
    image = np.full((3, 64, 96), 0.5, np.float32)
    image[:, :32] = -0.5
    # Without the decoder's noise, which is drawn after the image's posterior whatever its strength.
    still = {**SMALL, "image_noise_scale": 0.0, "decode_noise_scale": 0.0}
    without = pipeline.generate(Request(PROMPT, **still)).frames
    with_image = pipeline.generate(Request(PROMPT, image=image, **still)).frames
    ignored = pipeline.generate(Request(PROMPT, image=image, image_strength=0.0, **still)).frames
    assert (without != with_image).any()
    np.testing.assert_array_equal(without, ignored)


def batches(pipeline, monkeypatch, request):
    """How many samples the transformer ran at each step, and which perturbations."""
    found = []

    def load(bundle, name, **options):
        engine = load_engine(bundle, name, **options)
        return Counted(engine, found) if name == "transformer" else engine

    monkeypatch.setattr(engine_pool, "load_engine", load)
    pipeline.generate(request)
    return found


class Counted:
    """An engine that notes the batch and the perturbed blocks of each call."""

    def __init__(self, engine, found, blocks=()):
        self.engine, self.found, self.blocks = engine, found, blocks

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.engine.close()

    def bind(self, **static):
        mask = static.get("perturbation_mask")
        blocks = self.blocks if mask is None else tuple(map(tuple, np.argwhere(~mask).tolist()))
        return Counted(self.engine.bind(**static), self.found, blocks)

    def __call__(self, **inputs):
        self.found.append((len(inputs["latents"]), self.blocks))
        return self.engine(**inputs)


OFF = {"stg_scale": 0, "rescaling_scale": 1}


def test_guidance_decides_the_batch(pipeline, monkeypatch):
    def run(**guidance):
        return batches(pipeline, monkeypatch, Request(PROMPT, **guidance, **SMALL))

    assert run(guidance_scale=1.0, **OFF) == [(1, ())] * 3
    assert run(guidance_scale=3.0, **OFF) == [(2, ())] * 3
    (block,) = pipeline.bundle.presets["default"].passes[0].skip_block_list[0]
    assert run() == [(3, ((block, 0, 2),))] * 3
    assert run(guidance_scale=1.0, stg_mode="transformer_block") == [(2, ((block, 2, 1),))] * 3
    lists = {"guidance_timesteps": (1.0, 0.99, 0.9), "guidance_scale": (1, 4, 1), "stg_scale": (0, 1, 1)}
    found = run(**lists, rescaling_scale=0.5, skip_block_list=((), (0,), (1,)))
    assert found == [(1, ()), (2, ((1, 0, 1),)), (2, ((1, 0, 1),))]  # sigmas 1, 0.975, 0.71875


@pytest.mark.parametrize("mode", ["attention_values", "attention_skip", "transformer_block"])
def test_every_mode_of_spatiotemporal_guidance_changes_the_video(pipeline, mode):
    frames = pipeline.generate(Request(PROMPT, stg_mode=mode, **SMALL)).frames
    without = pipeline.generate(Request(PROMPT, **OFF, **SMALL)).frames
    assert (frames != without).any()


def test_a_block_that_is_not_there_is_refused_before_any_engine_loads(pipeline, monkeypatch):
    monkeypatch.setattr(engine_pool, "load_engine", None)
    with pytest.raises(InputError, match=r"skip_block_list names block 42; this transformer has \d+ blocks"):
        pipeline.generate(Request(PROMPT, skip_block_list=((42,),), **SMALL))


def test_given_noise_replaces_the_seed_s(pipeline):
    noise = np.random.default_rng(0).standard_normal((1, 16, 2, 2, 3), dtype=np.float32)
    still = {**SMALL, "decode_noise_scale": 0.0}
    one = pipeline.generate(Request(PROMPT, noise=noise, seed=1, **still)).frames
    two = pipeline.generate(Request(PROMPT, noise=noise, seed=2, **still)).frames
    np.testing.assert_array_equal(one, two)


def test_noise_of_another_shape_or_dtype_is_refused(pipeline):
    good = np.zeros((1, 16, 2, 2, 3), np.float32)
    assert pipeline.settings(Request("fog", noise=good, **SMALL)).request.noise is good
    for bad in (good.astype(np.float64), good[:, :, :1]):
        with pytest.raises(InputError, match=r"noise .*must be float32 \(1, 16, 2, 2, 3\)"):
            pipeline.settings(Request("fog", noise=bad, **SMALL))


def test_noise_comes_from_a_file_and_from_other_generators(pipeline, tmp_path):
    def run(**options):
        return pipeline.generate(Request(PROMPT, **OFF, decode_noise_scale=0.0, **options, **SMALL)).frames

    noise = TorchCpuGenerator(5).randn((1, 12, 16)).swapaxes(1, 2).reshape(1, 16, 2, 2, 3)
    np.save(tmp_path / "n.npy", noise)
    np.testing.assert_array_equal(run(noise=tmp_path / "n.npy"), run(seed=5))
    grid = TorchCpuGenerator(5).randn((1, 16, 2, 2, 3))
    np.testing.assert_array_equal(run(noise=grid), run(seed=5, noise_layout="diffusers"))
    rounded = TorchCpuGenerator(5).randn((1, 16, 2, 2, 3), "bf16")
    np.testing.assert_array_equal(
        run(noise=rounded), run(seed=5, noise_layout="diffusers", noise_dtype="bf16")
    )
    cuda = TorchCudaGenerator(5, "H200").randn((1, 16, 2, 2, 3))
    np.testing.assert_array_equal(
        run(noise=cuda), run(seed=5, noise_layout="diffusers", generator="cuda", gpu="H200")
    )


def test_padding_that_nobody_sees_is_cut(pipeline):
    """Official semantics mask the padding everywhere, so a longer limit cannot change the video."""
    bundle = pipeline.bundle
    preset = dataclasses.replace(bundle.presets["default"], max_tokens=64)
    shorter = Pipeline(dataclasses.replace(bundle, presets={"default": preset}))
    request = Request(PROMPT, **SMALL)
    np.testing.assert_array_equal(pipeline.generate(request).frames, shorter.generate(request).frames)


def test_watcher_sees_every_stage_and_step_and_may_cancel(pipeline):
    events = []
    pipeline.generate(Request(PROMPT, **SMALL), events.append)
    stages = [e.stage for e in events if e.step is None]
    assert stages == ["text encoder", "transformer", "image decoder"]
    assert [e.step.index for e in events if e.step] == [0, 1, 2]

    class Cancelled(Exception):
        pass

    def cancel(event):
        if event.step:
            raise Cancelled

    with pytest.raises(Cancelled):
        pipeline.generate(Request(PROMPT, **SMALL), cancel)


def test_long_prompt_is_cut_and_said(pipeline):
    video = pipeline.generate(Request("wave " * 400, **SMALL))
    assert video.truncated > 0
    assert pipeline.generate(Request(PROMPT, **SMALL)).truncated == 0


@pytest.mark.parametrize("component", ["text_encoder", "transformer", "vae_decoder", "vae_encoder"])
def test_missing_component_is_found_before_any_engine_loads(component, tiny_bundle, tmp_path, monkeypatch):
    folder = tmp_path / "bundle"
    shutil.copytree(tiny_bundle("0.9.5"), folder)
    manifest = json.loads((folder / "bundle.json").read_text())
    del manifest["components"][component]
    (folder / "bundle.json").write_text(json.dumps(manifest))
    monkeypatch.setattr(engine_pool, "load_engine", None)
    image = np.zeros((3, 64, 96), np.float32)
    with pytest.raises(InputError, match=f"has no {component}.*--component {component}"):
        Pipeline(folder).generate(Request(PROMPT, image=image, **SMALL))


def test_bundle_without_a_tokenizer_is_refused(tiny_bundle):
    bundle = dataclasses.replace(read_bundle(tiny_bundle("0.9.5")), tokenizer=None)
    with pytest.raises(BundleError, match="no tokenizer"):
        Pipeline(bundle).generate(Request(PROMPT, **SMALL))


class Broken:
    """An engine that returns `value` from its n-th call on."""

    def __init__(self, engine, component, value, after):
        self.engine, self.component, self.value, self.after = engine, component, value, after

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.engine.close()

    def bind(self, **static):
        return Broken(self.engine.bind(**static), self.component, self.value, self.after)

    def __call__(self, **inputs):
        outputs = {name: array.copy() for name, array in self.engine(**inputs).items()}
        self.after -= 1
        if self.after < 0:
            for output in outputs.values():
                output[..., -1] = self.value
                if self.value == 0:
                    output[:] = 0
        return outputs


@pytest.mark.parametrize("value", [np.nan, np.inf, 0])
@pytest.mark.parametrize(
    ("component", "after", "where"),
    [
        ("text_encoder", 0, "text_encoder returned"),
        ("transformer", 1, "transformer returned.*step 2 of 3"),
        ("vae_decoder", 0, "vae_decoder returned"),
        ("vae_encoder", 0, "vae_encoder returned"),
    ],
)
def test_broken_numbers_stop_the_run_where_they_begin(component, after, where, value, pipeline, monkeypatch):
    def load(bundle, name, **options):
        engine = load_engine(bundle, name, **options)
        return Broken(engine, name, value, after) if name == component else engine

    monkeypatch.setattr(engine_pool, "load_engine", load)
    image = np.linspace(-1, 1, 3 * 64 * 96, dtype=np.float32).reshape(3, 64, 96)
    with pytest.raises(NumericsError, match=where):
        pipeline.generate(Request(PROMPT, image=image, **SMALL))


def test_a_white_video_is_not_a_result(pipeline, monkeypatch):
    def load(bundle, name, **options):
        engine = load_engine(bundle, name, **options)
        return Brighter(engine) if name == "vae_decoder" else engine

    class Brighter(Broken):
        def __init__(self, engine):
            super().__init__(engine, "vae_decoder", 0, 1)

        def __call__(self, **inputs):
            return {name: np.abs(array) + 2 for name, array in self.engine(**inputs).items()}

    monkeypatch.setattr(engine_pool, "load_engine", load)
    with pytest.raises(NumericsError, match="vae_decoder returned only the value 255"):
        pipeline.generate(Request(PROMPT, **SMALL))


def test_a_missing_engine_of_the_last_stage_is_said_before_the_first_one_s_work(pipeline, monkeypatch):
    """As on a machine with a GPU where one component was not built."""
    looked, real = [], engine_pool.files

    def files(bundle, component, *where):
        looked.append(component)
        if component == "vae_decoder":
            raise InputError("no engine of vae_decoder; build one")
        return real(bundle, component, *where)

    monkeypatch.setattr(engine_pool, "files", files)
    monkeypatch.setattr(engine_pool, "load_engine", None)
    events = []
    with pytest.raises(InputError, match="no engine of vae_decoder"):
        pipeline.stream(Request(PROMPT, **SMALL), events.append)
    assert looked == ["text_encoder", "transformer", "vae_decoder"] and events == []


def test_a_gpu_s_number_is_refused_on_the_cpu(pipeline):
    with pytest.raises(InputError, match="device 1: onnxruntime runs on the CPU; leave it out"):
        Pipeline(pipeline.bundle, device=1)


def test_the_library_s_names():
    import ltxrt.runtime

    assert ltxrt.runtime.Pipeline is Pipeline
    assert ltxrt.runtime.Request is Request
    assert all(getattr(ltxrt.runtime, name) for name in ltxrt.runtime.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Unet'"):
        ltxrt.runtime.Unet  # noqa: B018


def test_engines_are_kept_on_request_and_freed_at_the_end(tiny_bundle, monkeypatch):
    loaded, closed = [], []

    def load(bundle, name, **options):
        engine = load_engine(bundle, name, **options)
        loaded.append(name)
        close = engine.close
        monkeypatch.setattr(engine, "close", lambda: (closed.append(name), close()))
        return engine

    monkeypatch.setattr(engine_pool, "load_engine", load)
    videos = {}
    for keep in (False, True):
        with Pipeline(tiny_bundle("0.9.5"), keep_loaded=keep) as pipeline:
            for seed in (0, 1):
                videos[keep, seed] = pipeline.generate(Request(PROMPT, seed=seed, **SMALL)).frames
            assert len(loaded) == (3 if keep else 6)
            assert len(closed) == (0 if keep else 6)
        assert sorted(closed) == sorted(loaded)
        loaded.clear()
        closed.clear()
    for seed in (0, 1):
        # Kept engines are loaded for many calls, and their matrices rearranged: sums in another order.
        difference = videos[False, seed].astype(int) - videos[True, seed]
        assert np.abs(difference).max() <= 1 and np.mean(difference != 0) < 1e-3


@pytest.mark.parametrize("name", ["onnx/vae_decoder.fp32.onnx.data", "tokenizer/tokenizer.json"])
def test_changed_files_of_the_same_size_end_a_run_before_its_work(tiny_bundle, tmp_path, name):
    """Weights rolled by 4096 floats gave a video, and exit status 0."""
    bundle = shutil.copytree(tiny_bundle("0.9.5"), tmp_path / "bundle")
    data = (bundle / name).read_bytes()
    places = min(4096 * 4, len(data) // 2)
    (bundle / name).write_bytes(data[places:] + data[:places])
    stages = []
    with pytest.raises(BundleError, match=f"{name} has SHA-256 .* changed or damaged: copy the bundle again"):
        Pipeline(bundle).stream(Request("a lighthouse", height=64, width=64, num_frames=9), stages.append)
    assert stages == []
