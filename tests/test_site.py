"""The documentation site: it builds without a warning and has every page; a link to nowhere fails."""

import importlib.util
import json
import logging
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COPIED = (".ci", "docs", "examples", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "mkdocs.yml")
PACKAGES = ("api", "engines", "export", "parity", "runtime")


@pytest.fixture
def tree(tmp_path):
    """A copy of what the site is made of, for a test to change."""
    for name in COPIED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    for name in PACKAGES:
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


@pytest.fixture
def build(monkeypatch):
    """(folder) → the site's folder and the warnings; what `make docs` runs, in this process."""
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    def run(folder):
        monkeypatch.chdir(folder)
        warnings = []
        handler = logging.Handler(logging.WARNING)
        handler.emit = lambda record: warnings.append(record.getMessage())
        logger = logging.getLogger("mkdocs")
        logger.addHandler(handler)
        try:
            config = load_config(str(folder / "mkdocs.yml"), site_dir=str(folder / "site"))
            config.plugins.on_startup(command="build", dirty=False)
            build(config)
        finally:
            logger.removeHandler(handler)
        return folder / "site", warnings

    return run


def test_the_site_has_every_page_and_no_warning(tree, build):
    site, warnings = build(tree)
    assert warnings == []
    pages = {p.relative_to(tree / "docs").with_suffix("") for p in (tree / "docs").rglob("*.md")}
    folders = [page.parent if page.name == "index" else page for page in pages]
    assert [folder for folder in folders if not (site / folder / "index.html").is_file()] == []
    home = (site / "index.html").read_text(encoding="utf-8")
    assert "<h1" in home and 'href="quickstart/"' in home and 'href="contributing/"' in home
    assert "docs/" not in home.replace("docs/benchmarks.json", "").replace("mkdocs/", "")
    assert 'href="../design/"' in (site / "contributing" / "index.html").read_text(encoding="utf-8")


def test_every_page_is_in_the_navigation(tree):
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2]
    pages = [p.relative_to(ROOT / "docs").as_posix() for p in (ROOT / "docs").rglob("*.md")]
    assert [page for page in pages if f" {page}\n" not in navigation] == []


PLANTED = [
    ("README.md", "[x](docs/nowhere.md)", "nowhere.md"),
    ("CONTRIBUTING.md", "[x](docs/design.md#outside)", "#outside"),
    ("docs/deploy.md", "[x](fp8.md#beyond)", "#beyond"),
    ("docs/deploy.md", "[x](#below)", "#below"),
    ("docs/deploy.md", "![x](benchmarks/none.svg)", "none.svg"),
]


def test_a_link_that_leads_nowhere_is_a_warning(tree, build):
    for page, text, _ in PLANTED:
        with (tree / page).open("a", encoding="utf-8") as file:
            file.write(f"\n{text}\n")
    _, warnings = build(tree)
    assert len(warnings) == len(PLANTED)
    assert [wanted for _, _, wanted in PLANTED if sum(wanted in warning for warning in warnings) != 1] == []


@pytest.fixture
def figures():
    spec = importlib.util.spec_from_file_location("figures", ROOT / ".ci" / "figures.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_readme_has_the_figures_that_were_measured(figures):
    result = json.loads(figures.MEASURED.read_text(encoding="utf-8"))
    readme = figures.README.read_text(encoding="utf-8")
    assert figures.updated(readme, result) == readme
    row = figures.measurement(result, "cold-start", "first transformer call")
    samples = next(one for one in row["samples"] if one["contender"] == figures.OURS)
    samples["values"] = [2 * value for value in samples["values"]]
    assert figures.updated(readme, result) != readme
