"""The wheel: what it holds, and that its commands run from anywhere."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("engines", "runtime", "export", "parity")
EXTRAS = {"cpu", "cuda", "tensorrt", "tensorrt-rtx", "export", "parity", "dev"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy, so that no build folder is left in the tree."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    parts = [*FOLDERS, "pyproject.toml", "README.md", "LICENSE"]
    files = subprocess.check_output([*listing, *parts], cwd=ROOT, text=True).split()
    for name in files:
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def test_wheel_holds_the_four_folders_and_nothing_else(wheel):
    names = {n for n in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in n}
    modules = {f"ltxrt/{p.relative_to(ROOT).as_posix()}" for f in FOLDERS for p in (ROOT / f).rglob("*.py")}
    assert names == modules | {f"ltxrt/{folder}/py.typed" for folder in FOLDERS}


def test_metadata_names_licence_and_extras(wheel):
    archive = zipfile.ZipFile(wheel)
    metadata = next(n for n in archive.namelist() if n.endswith("/METADATA"))
    lines = archive.read(metadata).decode().splitlines()
    assert "License-Expression: Apache-2.0" in lines
    assert {line.split(": ")[1] for line in lines if line.startswith("Provides-Extra")} == EXTRAS
    base = [line for line in lines if line.startswith("Requires-Dist") and "extra ==" not in line]
    assert {b.split(": ")[1].split(">")[0] for b in base} == {"numpy", "click", "tokenizers", "pillow", "av"}
    assert any(n.endswith("/licenses/LICENSE") for n in archive.namelist())


@pytest.mark.parametrize("command", ["ltx-run", "ltx-export"])
def test_installed_commands_run_from_an_empty_folder(wheel, tmp_path, command):
    target = tmp_path / "site"
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--target",
        str(target),
        str(wheel),
    ]
    subprocess.run(pip, check=True, capture_output=True)
    # -S -I and an explicit path keep this tree's editable install out of the way.
    code = (
        f"import sys; sys.path[:0] = [{str(target)!r}]; "
        f"from importlib.metadata import entry_points; "
        f"main = [e for e in entry_points(group='console_scripts') if e.name == {command!r}][0].load(); "
        f"import ltxrt.engines.errors as e; assert e.__file__.startswith({str(target)!r}), e.__file__; "
        f"main(['--help'])"
    )
    (tmp_path / "empty").mkdir()
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path / "empty", capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("Usage:")
