"""`ltx-run` as a user meets it: files, messages and exit statuses."""

import contextlib
import importlib.metadata
import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from ltxrt.engines.machine import resources
from ltxrt.engines.storage.files import sha256
from ltxrt.export.cli import main as export_main
from ltxrt.runtime.cli import main
from ltxrt.runtime.media import read_metadata, read_video
from ltxrt.runtime.request import provenance

SMALL = ["--height", "64", "--width", "96", "--num-frames", "9", "--steps", "2"]


WHOLE = (
    *(
        "height",
        "width",
        "num-frames",
        "steps",
        "skip-initial",
        "skip-final",
        "max-tokens",
        "seed",
        "threads",
    ),
)


def run(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


def run_small(bundle, output, *extra, prompt="fog over a lake"):
    return run("--bundle", bundle, "--prompt", prompt, "--output", output, *SMALL, *extra)


@pytest.mark.parametrize("name", ["video.mp4", "video.webm", "video.gif", "frames"])
def test_makes_a_video(tiny_bundle, tmp_path, name):
    result = run_small(tiny_bundle("0.9.5"), tmp_path / name, "--seed", 3)
    assert result.exit_code == 0, result.output
    assert "9 frames in" in result.output
    for stage in ("text encoder", "transformer: step 0/2", "image decoder", f"writing {name}"):
        assert [line for line in result.stderr.splitlines() if line.startswith(stage)], stage
    assert "parity" not in result.output  # a note for doctor and check, which can act on it
    found = {k.lower(): v for k, v in read_metadata(tmp_path / name).items()}
    assert (found["prompt"], found["seed"]) == ("fog over a lake", "3")
    assert [one["steps"] for one in json.loads(found["passes"])] == [2]
    settings = json.loads(found["settings"])
    assert (settings["generator"], settings["height"], settings["decode_timestep"]) == ("cpu", 64, 0.05)
    assert json.loads(found["components"])["transformer"]["precision"] == "fp32"
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_image_to_video(tiny_bundle, tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 70, 3), np.uint8)).save(tmp_path / "i.png")
    result = run_small(tiny_bundle("0.9.5"), tmp_path / "v.mp4", "--image", tmp_path / "i.png")
    assert result.exit_code == 0, result.output
    frames, rate = read_video(tmp_path / "v.mp4")
    assert (frames.shape, rate) == ((9, 64, 96, 3), 25)


def test_same_seed_same_file(tiny_bundle, tmp_path):
    for name in ("one.mp4", "two.mp4"):
        assert run_small(tiny_bundle("0.9.5"), tmp_path / name, "--seed", 9).exit_code == 0
    np.testing.assert_array_equal(read_video(tmp_path / "one.mp4")[0], read_video(tmp_path / "two.mp4")[0])


def test_truncation_is_said_aloud(tiny_bundle, tmp_path):
    result = run_small(tiny_bundle("0.9.5"), tmp_path / "v.mp4", prompt="sea " * 600)
    assert result.exit_code == 0
    lines = result.stderr.splitlines()
    (warning,) = (line for line in lines if line.startswith("warning"))
    assert " tokens and --max-tokens is 256: its end is cut off; shorten it" in warning
    assert lines.index(warning) < next(i for i, one in enumerate(lines) if one.startswith("text encoder"))


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (
            ["--num-frames", "20", "--compat", "diffusers"],
            "--num-frames 20: must be 8k+1; nearest are 17 and 25",
        ),
        (["--height", "-32"], "--height -32: must be between 1 and 8192"),
        (["--prompt", " "], "--prompt is empty"),
        (["--image", "absent.png"], "--image absent.png: no such file"),
        (["--output", "absent/v.mp4"], "does not exist"),
        (["--output", "v.avi"], "suffix must be"),
        (["--bundle", "absent"], "no such folder"),
        (["--reference", "comfy"], "must be one of official, diffusers"),
        (["--backend", "abacus"], "--backend 'abacus': no backend has this name"),
        (["--precision", "int3"], "must be one of fp32, fp16"),
        (["--precision", "unet=fp32"], "--precision names 'unet'"),
        (["--steps", "many"], "not a valid integer"),
        (["--timesteps", "1,0.5"], "--steps and --timesteps exclude each other"),
        (["--max-tokens", "1"], "--max-tokens 1: must be between 2 and 512"),
        (["--threads", "0"], "threads 0"),
        (["--threads", "100000"], "--threads 100000: must be a whole number between 1 and 1024"),
        *((["--" + n, "9" * 400], "not a valid integer of up to 20 digits") for n in WHOLE),
        (["--height", "9" * 5000], "not a valid integer of up to 20 digits"),
        (["--seed", "३"], "'३' is not a valid integer"),
        (["--vae-memory", "9" * 400], "must be a positive number of bytes"),
        (["--vae-memory", "९GiB"], "--vae-memory '९GiB': must be a positive number of bytes"),
        (["--condition", "i.png@" + "9" * 400], "must be a whole number of 0 or more"),
        (["--condition", "i.png@३"], "must be MEDIA[@FRAME[:STRENGTH]]"),
        (["--second-pass", "steps=" + "9" * 400], "must be a whole number of up to 20 digits"),
        (["--prompt", "fog \udce9"], r"--prompt is no UTF-8 text at 'fog \xe9'"),
        (["--image", "\x1b[31mred\x07.png"], r"--image \x1b[31mred\x07.png: no such file"),
        (["--noise", "comfy"], "--noise 'comfy': must be one of official, diffusers"),
    ],
)
def test_mistakes_get_one_line_and_status_2(tiny_bundle, tmp_path, extra, message):
    result = run_small(tiny_bundle("0.9.5"), tmp_path / "v.mp4", *extra)
    assert result.exit_code == 2
    assert message in result.output
    errors = [line for line in result.output.splitlines() if "error" in line.lower()]
    assert len(errors) == 1 and "Traceback" not in result.output
    assert len(errors[0]) < 800 and errors[0].isprintable()
    assert list(tmp_path.iterdir()) == []


def test_an_existing_video_stays_when_the_run_fails(tiny_bundle, tmp_path):
    (tmp_path / "v.mp4").write_bytes(b"older")
    assert run_small(tiny_bundle("0.9.5"), tmp_path / "v.mp4", "--height", "9999").exit_code == 2
    assert (tmp_path / "v.mp4").read_bytes() == b"older"


def command(bundle, output, *extra):
    return [
        sys.executable, "-m", "ltxrt.runtime.cli", "--bundle", str(bundle), "--prompt", "fog",
        "--output", str(output), *SMALL, *extra,
    ]  # fmt: skip


INTERRUPTED = """
import os, signal, sys
from ltxrt.engines.terminal import jobs
from ltxrt.runtime.cli import main

class Interrupting(jobs.Job):
    def __call__(self, progress):
        super().__call__(progress)
        if progress.stage == sys.argv[1] and (progress.done > 0) == (sys.argv[2] == "step"):
            print("in the middle", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGINT)

jobs.Job = Interrupting
main(sys.argv[3:])
"""


@pytest.mark.parametrize("place", [("transformer", "step"), ("image decoder", "stage")])
def test_interruption_leaves_nothing(tiny_bundle, tmp_path, place):
    """The signal comes from within a run, at a place in it: how fast the machine is does not matter."""
    arguments = command(tiny_bundle("0.9.5"), tmp_path / "v.mp4")[3:]
    program = [sys.executable, "-c", INTERRUPTED, *place, *arguments]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == 130, done.stderr
    lines = done.stderr.splitlines()
    assert (lines.count("in the middle"), lines[-1]) == (1, "interrupted")
    assert list(tmp_path.iterdir()) == []


def test_an_interruption_swallowed_while_something_is_loaded_ends_the_run(tiny_bundle, tmp_path, monkeypatch):
    """Two of 64 runs interrupted in their first second went on to their end."""

    def swallow(request):
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        return []

    monkeypatch.setattr(provenance, "inputs", swallow)
    result = run_small(tiny_bundle("0.9.5"), tmp_path / "v.mp4", "--quiet")
    assert (result.exit_code, result.stderr) == (130, "stopping…\ninterrupted\n")
    assert list(tmp_path.iterdir()) == []


def test_a_whole_generation_imports_no_torch(tiny_bundle, tmp_path):
    Image.new("RGB", (96, 64), "teal").save(tmp_path / "i.png")
    arguments = command(tiny_bundle("0.9.5"), tmp_path / "v.mp4", "--image", str(tmp_path / "i.png"))[3:]
    code = (
        "import sys\n"
        "from ltxrt.runtime.cli import main\n"
        f"main({arguments!r}, standalone_mode=False)\n"
        "heavy = {'torch', 'transformers', 'diffusers', 'onnx', 'onnxscript'} & set(sys.modules)\n"
        "print('heavy:', sorted(heavy), 'onnxruntime' in sys.modules)"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.splitlines()[-1] == "heavy: [] True"
    assert read_video(tmp_path / "v.mp4")[0].shape == (9, 64, 96, 3)


IDLE = (
    *("pynvml", "psutil", "PIL", "html", "rich", "yaml", "difflib", "ltxrt.engines.tensorrt"),
    *("ltxrt.runtime.remade", "ltxrt.runtime.preview", "ltxrt.runtime.inspect"),
    *("ltxrt.runtime.media.read", "ltxrt.runtime.media.readers", "ltxrt.runtime.media.images"),
    *("ltxrt.runtime.media.formats.arrays", "ltxrt.runtime.media.formats.images"),
    *("ltxrt.runtime.media.formats.reading", "ltxrt.runtime.request.yaml_file"),
    *("ltxrt.runtime.request.prompts", "ltxrt.runtime.request.sources"),
)


@pytest.mark.parametrize("backend", ["cpu", "auto"])
@pytest.mark.parametrize("caller", ["command", "python"])
def test_a_plain_run_on_the_processor_loads_nothing_that_it_was_not_asked_for(
    tiny_bundle, tmp_path, caller, backend
):
    """Each of them costs milliseconds of every start; by what is loaded, because times differ by machine."""
    if backend == "auto" and resources.gpus():
        pytest.skip("there is a GPU, of which NVML tells")
    bundle, output = str(tiny_bundle("0.9.5")), tmp_path / "v.mp4"
    arguments = command(bundle, output, "--backend", backend)[3:]
    code = {
        "command": f"from ltxrt.runtime.cli import main\nmain({arguments!r}, standalone_mode=False)\n",
        "python": f"import ltxrt\nltxrt.Pipeline({bundle!r}, backend={backend!r})\n",
    }[caller]
    code += f"import sys\nprint([m for m in {IDLE!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
    assert output.exists() == (caller == "command")


def test_explicit_timesteps_and_stochastic_sampling(tiny_bundle, tmp_path):
    base = ["--bundle", tiny_bundle("0.9.5"), "--prompt", "fog", *SMALL[:-2]]
    frames = []
    for name, extra in (("a.mp4", []), ("b.mp4", ["--stochastic"]), ("c.mp4", ["--no-stochastic"])):
        result = run(*base, "--output", tmp_path / name, "--timesteps", "1,0.975,0.725", *extra)
        assert result.exit_code == 0, result.output
        assert "transformer: step 0/3" in result.output
        frames.append(read_video(tmp_path / name)[0])
    assert (frames[0] != frames[1]).any()
    np.testing.assert_array_equal(frames[0], frames[2])
    for text, message in (("1,x", "numbers with commas"), ("0.5,0.9", "must descend"), ("2", "at most 1")):
        result = run(*base, "--output", tmp_path / "d.mp4", "--timesteps", text)
        assert (result.exit_code, message in result.output) == (2, True), result.output


def test_different_videos_say_how_they_differ(tiny_bundle, tmp_path):
    """Other noise, other precision of it, another start, another image: their metadata differ."""
    for name, shade in (("a", 0), ("b", 9)):
        (tmp_path / name).mkdir()
        Image.new("RGB", (96, 64), (shade, 200, 30)).save(tmp_path / name / "i.png")
    cases = {
        "cpu": [],
        "cuda": ["--generator", "cuda", "--gpu", "H100"],
        "layout": ["--noise", "diffusers"],
        "bf16": ["--noise-dtype", "bf16"],
        "tiles": ["--vae-memory", "1GB"],
        "decode": ["--decode-timestep", "0.1"],
        "image": ["--image", tmp_path / "a" / "i.png"],
        "another": ["--image", tmp_path / "b" / "i.png"],
        "place": ["--condition", f"{tmp_path / 'a' / 'i.png'}@8"],
        "plain": ["--image", tmp_path / "a" / "i.png", "--preparation", "plain"],
    }
    found = {}
    for name, extra in cases.items():
        result = run_small(tiny_bundle("0.9.5"), tmp_path / f"{name}.mp4", *extra)
        assert result.exit_code == 0, result.output
        found[name] = read_metadata(tmp_path / f"{name}.mp4")
    told = [json.dumps(one, sort_keys=True) for one in found.values()]
    assert len(set(told)) == len(cases)
    settings = json.loads(found["cuda"]["settings"])
    assert (settings["generator"], settings["gpu"], settings["noise_layout"]) == ("cuda", "H100", "official")
    assert json.loads(found["layout"]["settings"])["noise_layout"] == "diffusers"
    (image,) = json.loads(found["image"]["given"])
    assert (image["for"], image["name"], image["strength"]) == ("image", "i.png", 1.0)
    assert image["sha256"] == sha256(tmp_path / "a" / "i.png")
    assert str(tmp_path) not in "".join(told)
    assert found["cpu"]["software"] == f"ltxrt {importlib.metadata.version('ltxrt')}"
    assert json.loads(found["cpu"]["backend"]) == {"name": "onnxruntime", "threads": None}
    components = json.loads(found["cpu"]["components"])
    assert {one["precision"] for one in components.values()} == {"fp32"}
    assert sorted(components) == ["text_encoder", "transformer", "vae_decoder"]


def test_what_has_less_effect_than_it_seems_is_said(two_pass_bundle, tmp_path):
    asked = ["--bundle", two_pass_bundle, "--prompt", "fog", "--output", tmp_path / "v.mp4", *SMALL]
    two = ["--two-passes", "--downscale-factor", "0.67", "--second-pass", "timesteps=0.725"]
    result = run(*asked, *two, "--stg-scale", "1", "--skip-block-list", "")
    assert result.exit_code == 0, result.output
    said = "note: --steps, --stg-scale, --skip-block-list hold for the first pass; --second-pass KEY=VALUE"
    assert said in result.output
    assert "note: 2 of the 2 steps of pass 1 have an --stg-scale and no block to perturb" in result.output


def test_messages_name_the_pass_that_the_user_named(two_pass_bundle, tmp_path):
    asked = ["--bundle", two_pass_bundle, "--prompt", "fog", "--output", tmp_path / "v.mp4", *SMALL]
    asked += ["--two-passes", "--downscale-factor", "0.67", "--second-pass", "steps=20"]
    for extra, message in (
        ("timesteps=0.725", "--second-pass steps and --second-pass timesteps exclude each other"),
        ("skip-final=20", "--second-pass skip-initial 0 and --second-pass skip-final 20 leave none of 20"),
    ):
        result = run(*asked, "--second-pass", extra)
        assert result.exit_code == 2 and message in result.output, result.output


def test_messages_name_the_key_of_a_settings_file(tiny_bundle, tmp_path):
    file = tmp_path / "c.yaml"
    asked = [
        "--bundle",
        tiny_bundle("0.9.5"),
        "--prompt",
        "fog",
        "--output",
        tmp_path / "v.mp4",
        "--config",
        file,
    ]
    for text, extra, message in (
        ("width: 40", ["--compat", "diffusers"], f"error: {file}: width 40: must be a multiple of 32"),
        ("width: 9999", ["--width", "9998"], "error: --width 9998: must be between 1 and 8192"),
        ("num_inference_steps: 0", [], f"error: {file}: num_inference_steps 0: must be between 1 and 1000"),
        (
            "first_pass: {}\nsecond_pass: {num_inference_steps: 0}",
            ["--downscale-factor", "0.5"],
            f"error: {file}: second_pass: num_inference_steps 0: must be between 1 and 1000",
        ),
        (
            "first_pass: {}\nsecond_pass: {steps: 3}",
            ["--downscale-factor", "0.5", "--second-pass", "steps=0"],
            "error: --second-pass steps 0: must be between 1 and 1000",
        ),
    ):
        file.write_text(text)
        result = run(*asked, *extra)
        assert result.exit_code == 2 and result.stderr.startswith(message), result.stderr


def test_names_that_a_terminal_would_obey_are_listed_as_escapes(tiny_bundle, tmp_path):
    shutil.copytree(tiny_bundle("0.9.1"), tmp_path / "bundle", copy_function=os.link)
    folder = tmp_path / "bundle" / "engines" / "tensorrt_rtx" / "sm89"
    folder.mkdir(parents=True)
    (folder / "\x1b]0;x\x07.engine").write_bytes(b"")
    command = ["engines", "list", "--bundle", str(tmp_path / "bundle")]
    shown = CliRunner().invoke(export_main, command)
    assert shown.exit_code == 0 and r"\x1b]0;x\x07.engine: " in shown.output and "\x1b" not in shown.output


def test_presets_are_listed(tiny_bundle):
    result = run("--bundle", tiny_bundle("0.9.1"), "--list-presets")
    assert result.exit_code == 0
    for line in (
        "LTX-Video 0.9.1",
        "default:",
        "  decode-timestep: 0.05",
        "  pass 1:",
        "    steps: 40",
        "    guidance-scale: 3.0",
        "    stochastic: no",
    ):
        assert line in result.output.splitlines()


def test_presets_are_listed_as_json(tiny_bundle):
    data = json.loads(run("--bundle", tiny_bundle("0.9.1"), "--list-presets", "--json").stdout)
    assert (data["event"], data["version"]) == ("result", "0.9.1")
    assert data["presets"]["default"]["passes"][0]["steps"] == 40


def test_without_options_there_is_the_help():
    result = run()
    assert result.exit_code == 2 and "Examples:\n  ltx-run --bundle" in result.output


@pytest.mark.parametrize("missing", ["--prompt", "--output"])
def test_prompt_and_output_are_needed(tiny_bundle, tmp_path, missing):
    given = {"--prompt": "fog", "--output": str(tmp_path / "v.mp4")}
    del given[missing]
    result = run("--bundle", tiny_bundle("0.9.5"), *(part for pair in given.items() for part in pair))
    assert result.exit_code == 2
    assert f"Missing option '{missing}'" in result.output


@pytest.mark.parametrize("option", ["--input-video", "--condition", "--image"])
def test_a_video_does_not_replace_what_it_is_made_from(tiny_bundle, tmp_path, option):
    Image.fromarray(np.zeros((64, 96, 3), np.uint8)).save(tmp_path / "a.gif")
    before = (tmp_path / "a.gif").read_bytes()
    (tmp_path / "link.gif").symlink_to("a.gif")
    for name in ("a.gif", "link.gif"):
        result = run_small(tiny_bundle("0.9.5"), tmp_path / name, option, tmp_path / "a.gif")
        assert result.exit_code == 2, result.output
        assert "the video is made from this file; give another name" in result.output
    assert (tmp_path / "a.gif").read_bytes() == before
