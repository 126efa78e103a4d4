"""The wheel: what it holds, and that its commands run from anywhere with the declared dependencies alone."""

import importlib.metadata
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
FOLDERS = ("api", "engines", "runtime", "export", "parity")
INSTALLED = {"cpu", "export", "parity", "dev", "docs", "tensorrt-rtx"}  # what the Makefile installs
EXTRAS = INSTALLED | {"hub", "cuda", "tensorrt", "onnxruntime", "onnxruntime-cuda", "trt", "rtx"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DEPENDENCIES = PROJECT["dependencies"]
BUILD = "from setuptools import build_meta; build_meta.build_{}('..')"
PINS = [
    Requirement(line)
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if line and not line.startswith("#")
]


def declared(*extras):
    return [*DEPENDENCIES, *(text for extra in extras for text in PROJECT["optional-dependencies"][extra])]


def modules():
    return {p.relative_to(ROOT).as_posix() for folder in FOLDERS for p in (ROOT / folder).rglob("*.py")}


def run(executable, *arguments, cwd):
    """What the command prints; it must succeed."""
    command = [str(executable), *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    """The unpacked source archive, built from a copy: no build folder is left in the tree."""
    folder = tmp_path_factory.mktemp("sdist")
    ignored = shutil.ignore_patterns(".[!c]*", "build", "dist", "demo", "out", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, folder / "tree", ignore=ignored, symlinks=True)
    run(sys.executable, "-c", BUILD.format("sdist"), cwd=folder / "tree")
    (archive,) = folder.glob("ltxrt-*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return folder / archive.name.removesuffix(".tar.gz")


@pytest.fixture(scope="module")
def wheel(sdist):
    """Built from the source archive, as `make wheel` does."""
    run(sys.executable, "-c", BUILD.format("wheel"), cwd=sdist)
    (wheel,) = sdist.parent.glob("ltxrt-*.whl")
    return wheel


def test_source_archive_holds_what_building_and_testing_need(sdist):
    wanted = modules() | {p.relative_to(ROOT).as_posix() for p in (ROOT / "tests").rglob("*.py")}
    wanted |= {
        ".ci/run",
        ".ci/measure.py",
        "Makefile",
        "constraints.txt",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "LICENSE",
        "README.md",
    }
    assert [name for name in sorted(wanted) if not (sdist / name).is_file()] == []


def test_wheel_holds_the_five_folders_and_nothing_else(wheel):
    names = {n for n in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in n}
    typed = {f"ltxrt/{folder}/py.typed" for folder in FOLDERS}
    data = {"ltxrt/parity/report/report.html"}
    wanted = {f"ltxrt/{name}" for name in modules()} | typed | data
    assert names == {name.replace("ltxrt/api/", "ltxrt/") for name in wanted}


def test_metadata_names_licence_and_extras(wheel):
    archive = zipfile.ZipFile(wheel)
    metadata = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
    lines = archive.read(metadata).decode().splitlines()
    assert "License-Expression: Apache-2.0" in lines
    assert {line.split(": ")[1] for line in lines if line.startswith("Provides-Extra")} == EXTRAS
    base = [line for line in lines if line.startswith("Requires-Dist") and "extra ==" not in line]
    assert {Requirement(b.split(": ")[1]).name for b in base} == {
        "numpy",
        "click",
        "pyyaml",
        "tokenizers",
        "pillow",
        "av",
        "rich",
        "psutil",
        "nvidia-ml-py",
    }
    assert any(n.endswith(".dist-info/licenses/LICENSE") for n in archive.namelist())


def needed(*roots):
    """The installed distributions that `roots`, requirements, ask for, and those these ask for; by name."""
    found, seen, queue = {}, set(), [Requirement(root) for root in roots]
    while queue:
        requirement = queue.pop()
        key = (canonicalize_name(requirement.name), frozenset(requirement.extras))
        if key in seen:
            continue
        seen.add(key)
        found[key[0]] = importlib.metadata.distribution(key[0])
        for other in map(Requirement, found[key[0]].requires or []):
            if other.marker is None or any(other.marker.evaluate({"extra": e}) for e in {"", *key[1]}):
                queue.append(other)
    return found


@pytest.fixture(scope="module")
def deployment(wheel, tmp_path_factory):
    """The commands' folder of an environment that holds the wheel and what it declares without any extra."""
    folder = tmp_path_factory.mktemp("deployment")
    run(sys.executable, "-m", "venv", "--without-pip", "venv", cwd=folder)
    (site,) = folder.glob("venv/lib/python3.*/site-packages")
    for name in DEPENDENCIES:
        for found in needed(name).values():
            for top in {file.parts[0] for file in found.files} - {"..", "__pycache__"}:
                if not (site / top).exists():
                    (site / top).symlink_to(found.locate_file(top))
    commands = folder / "venv" / "bin"
    pip = (sys.executable, "-m", "pip", "--python", commands / "python")
    run(*pip, "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=folder)
    return commands


def test_the_installed_package_has_the_names_that_programs_use(deployment, tmp_path):
    code = "import ltxrt; print(ltxrt.__version__, ltxrt.Pipeline.__name__, ltxrt.Request('fog').prompt)"
    assert run(deployment / "python", "-c", code, cwd=tmp_path) == f"{PROJECT['version']} Pipeline fog\n"


@pytest.mark.parametrize("command", ["ltx-run", "ltx-export"])
@pytest.mark.parametrize(
    "option, starts", [("--help", "Usage: {0} [OPTIONS]"), ("--version", "{0}, version ")]
)
def test_installed_commands_run_from_an_empty_folder(deployment, tmp_path, command, option, starts):
    assert run(deployment / command, option, cwd=tmp_path).startswith(starts.format(command))


def test_the_deployment_environment_has_no_torch_and_says_which_extra_brings_it(deployment, tmp_path):
    command = [deployment / "ltx-export", "onnx", "model.safetensors", "--output", "bundle"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    line = done.stderr.splitlines()[-1]
    assert re.fullmatch(r"error: \w+ is not installed; .* pip install 'ltxrt\[export\]'", line)
    assert list(tmp_path.iterdir()) == []


def test_each_declared_range_admits_its_pin():
    pins = {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in PINS}
    for requirement in map(Requirement, declared(*INSTALLED)):
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), requirement


def test_all_that_make_installs_is_pinned():
    cuda = ("nvidia-", "cuda-", "triton")  # a CUDA build of torch pins its own
    names = {name for name in needed(*declared(*INSTALLED)) if not name.startswith(cuda)}
    assert names - {canonicalize_name(pin.name) for pin in PINS} == set()
