"""What makes the documentation site of the repository's own files: hooks of `mkdocs.yml`.

README.md is the first page, and other pages from outside of docs/ (`PAGES`) have a place beside it. Links
between files are those of the repository, so that they work where it is read on a forge; here they are turned
into links between pages. `mkdocs build --strict` fails at a link or an anchor that leads nowhere.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PACKAGES = ("engines", "export", "parity", "runtime")
# A file of the repository → the page that it is on the site. Files in docs/ are pages by themselves.
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "examples/shapes/README.md": "shapes.md",
}
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#|/)([^)#\s]+)(#[^)\s]*)?(?=\))")
SOURCE = re.compile(r'(?<= src=")(?![a-z]+:|/)([^"]+)(?=")')


def on_startup(command: str, dirty: bool) -> None:
    """The reference is made from docstrings, which are found under the packages' own names."""
    types = ROOT / ".types" / "ltxrt"
    types.mkdir(parents=True, exist_ok=True)
    sources = {"__init__.py": "api/__init__.py", **{name: name for name in PACKAGES}}
    for name, source in sources.items():
        if not (types / name).is_symlink():
            (types / name).symlink_to(Path("../..") / source)


def on_files(files: Files, config: MkDocsConfig) -> None:
    for source, page in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=text))


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    if page.file.src_uri == "index.md":  # it leads on by itself
        page.meta["hide"] = ["navigation"]
    sources = {page: source for source, page in PAGES.items()}
    here = posixpath.dirname(sources.get(page.file.src_uri, f"docs/{page.file.src_uri}"))
    base = posixpath.dirname(page.file.src_uri)

    def target(path: str) -> str:
        meant = posixpath.normpath(posixpath.join(here, path))
        known = PAGES.get(meant) or meant.removeprefix("docs/")
        return posixpath.relpath(known, base or ".")

    def image(path: str) -> str:
        """HTML is not looked into by mkdocs: relative to the page's address, which is a folder."""
        depth = page.url.count("/")
        return "../" * depth + posixpath.normpath(posixpath.join(here, path)).removeprefix("docs/")

    markdown = SOURCE.sub(lambda found: image(found[1]), markdown)
    return LINK.sub(lambda found: target(found[1]) + (found[2] or ""), markdown)
